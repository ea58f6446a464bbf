"""Ids of texts with common beginnings are those of each text alone, whatever the tokenizer."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable

import pytest
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from transformers import PreTrainedTokenizerFast, tokenization_utils_base

from reasontrain.data import tokenization
from reasontrain.data.replies import render_reply, reply_of
from reasontrain.data.tokenization import Tokenization
from reasontrain.types import UserError
from tests import tiny
from tests.chat_templates import (
    TEMPLATES,
    Template,
    encoder,
    one_turn,
    two_turns,
    with_thought,
    with_tools,
)

TOKENS = (
    AddedToken("<s>", normalized=False, special=True),
    AddedToken("<turn>", normalized=False, special=True),
    AddedToken("<turn><x>", normalized=False, special=True),
    AddedToken("<left>", normalized=False, special=True, lstrip=True),
    AddedToken("<right>", normalized=False, special=True, rstrip=True),
    AddedToken("<word>", normalized=False, special=True, single_word=True),
    AddedToken("<think>", normalized=True, special=False),
    AddedToken("<unk>", normalized=False, special=True),
)
PIECES = (
    *(t.content for t in TOKENS),
    "a",
    "ab",
    "Abé",
    " ",
    "  ",
    "\n",
    "\n\n",
    "7",
    "▁",
    "<",
    ">",
)


def byte_level(prefix: bool) -> Tokenizer:
    own = Tokenizer(models.BPE())
    own.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    own.decoder = decoders.ByteLevel()
    return own


def metaspace(scheme: str) -> Tokenizer:
    own = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    own.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=scheme != "never")
    return own


def llama2() -> Tokenizer:
    own = Tokenizer(models.BPE(unk_token="<unk>"))
    own.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return own


def unigram() -> Tokenizer:
    own = Tokenizer(models.Unigram())
    own.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " "), normalizers.Strip()]
    )
    own.pre_tokenizer = pre_tokenizers.Metaspace()
    return own


def end_reader() -> Tokenizer:
    """A normalizer that drops an added token behind a "b" at the end of a text."""
    own = byte_level(False)
    own.normalizer = normalizers.Replace(Regex("b<think>$"), "b")
    return own


def word_pieces() -> Tokenizer:
    own = Tokenizer(models.WordPiece(unk_token="<unk>"))
    own.normalizer = normalizers.BertNormalizer()
    own.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return own


TOKENIZERS: dict[str, tuple[Callable[[], Tokenizer], type]] = {
    "bytes": (lambda: byte_level(False), trainers.BpeTrainer),
    "bytes after a space": (lambda: byte_level(True), trainers.BpeTrainer),
    "metaspace first": (lambda: metaspace("first"), trainers.BpeTrainer),
    "metaspace always": (lambda: metaspace("always"), trainers.BpeTrainer),
    "metaspace never": (lambda: metaspace("never"), trainers.BpeTrainer),
    "Llama 2": (llama2, trainers.BpeTrainer),
    "end of text": (end_reader, trainers.BpeTrainer),
    "unigram": (unigram, trainers.UnigramTrainer),
    "word pieces": (word_pieces, trainers.WordPieceTrainer),
}


def built(name: str) -> PreTrainedTokenizerFast:
    """A tokenizer of this kind, trained on texts of which it does not know every character."""
    make, trainer = TOKENIZERS[name]
    own = make()
    unknown = {"unk_token": "<unk>"} if name == "unigram" else {}
    corpus = ["a ab Abe  ab\n\nab a 7 ab", "ab\nAbe a  a\n77 < a > ab"] * 20
    own.train_from_iterator(
        corpus, trainer(vocab_size=300, special_tokens=["<unk>"], show_progress=False, **unknown)
    )
    own.add_tokens(list(TOKENS))
    return PreTrainedTokenizerFast(tokenizer_object=own)


def alone(own: Tokenization, text: str) -> tuple[int, ...]:
    return tuple(own.tokenizer(text, add_special_tokens=own.add_special_tokens)["input_ids"])


@pytest.mark.parametrize("name", TOKENIZERS)
def test_beginnings_of_random_texts_have_their_own_ids(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenization, "BATCH_SIZE", 64)
    own = Tokenization(built(name), add_special_tokens=False)
    draw = random.Random(name)
    texts = ["ab<think>", "ab<think>a"]
    for _ in range(200):
        pieces = draw.choices(PIECES, k=draw.randint(1, 12))
        ends = sorted(draw.randint(0, len(pieces)) for _ in range(draw.randint(1, 4)))
        texts += ["".join(pieces[:end]) for end in ends]
    assert own.encode(texts) == [alone(own, text) for text in texts]


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_rows_of_chat_templates_have_the_ids_of_their_texts_alone(template: Template) -> None:
    chat = encoder(template)
    texts = []
    for problem in (one_turn(template), two_turns(template), with_tools(), with_thought()):
        try:
            turns = render_reply(chat, reply_of(chat, problem)).turns
        except UserError:
            continue  # the template does not render tools or thoughts
        texts += [text for turn in turns for text in (turn.prompt, turn.prompt + turn.answer)]
    assert len(texts) >= 2
    assert chat.encode(texts) == [alone(chat.tokenization, text) for text in texts]


def test_a_prompt_with_its_reply_is_tokenized_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = tiny.tokenizer()
    own = Tokenization(tokenizer, add_special_tokens=False)
    num_characters = 0

    class Counting:
        def __getattr__(self, name: str) -> object:
            return getattr(tokenizer, name)

        def __call__(self, texts: list[str], **kwargs: object) -> object:
            nonlocal num_characters
            num_characters += sum(map(len, texts))
            return tokenizer(texts, **kwargs)

    monkeypatch.setattr(own, "tokenizer", Counting())
    turn = "<|im_start|>user\n" + "1+1=2 " * 50 + "<|im_end|>\n"
    prompts = [turn * num + "<|im_start|>assistant\n" for num in range(1, 5)]
    texts = [text for prompt in prompts for text in (prompt, prompt + "2<|im_end|>")]
    own.encode(texts)
    # Nothing but the header is in two texts: none of these prompts begins with the one before.
    assert num_characters < sum(len(text) for text in texts[1::2]) + 100


def test_a_text_beyond_the_context_has_no_warning_of_the_library(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The recipe says whether such a row is refused or dropped."""
    monkeypatch.setattr(tokenization_utils_base.logger, "warning", pytest.fail)
    short = copy.deepcopy(tiny.tokenizer())
    short.model_max_length = 2
    own = Tokenization(short, add_special_tokens=False)
    assert len(own.encode(["1+1=2", "1+1=2 1+1=2"])[0]) > 2
    assert len(own.encode_answers(["1+1=2"])[0]) > 2
