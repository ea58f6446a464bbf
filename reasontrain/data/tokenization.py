"""Texts -> token ids, in batches, with what texts begin with in common tokenized once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from reasontrain.data.progress import with_progress

if TYPE_CHECKING:
    from tokenizers import Encoding
    from transformers import PreTrainedTokenizerBase

BATCH_SIZE = 1000
"""Texts that the tokenizer gets at once; it encodes them in parallel."""


class Tokenization:
    """Encodes texts with one tokenizer; the ids are those that it gives to each text alone.

    A tokenizer splits a text at its added tokens first, and encodes the parts on their own. The
    ids of a prompt that ends with `<|im_start|>assistant\\n` are therefore those of the prompt
    with its reply up to `<|im_start|>`, and then those of `<|im_start|>assistant\\n` alone, which
    are the same for all rows. With `add_special_tokens`, every text is tokenized as a whole.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, add_special_tokens: bool) -> None:
        """Wrap a tokenizer; with `add_special_tokens`, texts begin with BOS if it writes one."""
        self.tokenizer = tokenizer
        self.add_special_tokens = add_special_tokens

    def encode(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """The ids of these texts.

        A text that the next one begins with, such as a prompt before the prompt with its reply,
        costs little if texts have no BOS added.
        """
        encoded: list[tuple[int, ...]] = []
        starts = range(0, len(texts), BATCH_SIZE)
        for start in with_progress(starts, f"batches of {BATCH_SIZE} texts tokenized"):
            encoded += self._encode_batch(texts[start : start + BATCH_SIZE])
        return encoded

    def encode_answers(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """The ids of texts that follow a prompt whose last token they cannot change."""
        if not texts:
            return []
        batch = self.tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
        return [tuple(ids) for ids in batch]

    def _encode_batch(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """The ids of texts; each that the one behind it begins with is a part of that one's."""
        longer = list(range(len(texts)))
        for index in reversed(range(len(texts) - 1)):
            if texts[longer[index + 1]].startswith(texts[index]):
                longer[index] = longer[index + 1]
        whole = sorted(set(longer))
        encoded = dict(zip(whole, self._tokenize([texts[index] for index in whole]), strict=True))
        splits = {
            index: self._last_split(*encoded[longer[index]], text)
            for index, text in enumerate(texts)
            if index not in encoded
        }
        ends = sorted({texts[index][start:] for index, (_, start) in splits.items()})
        ids_of_end = {end: ids for end, (ids, _) in zip(ends, self._tokenize(ends), strict=True)}
        ids_of = {index: ids for index, (ids, _) in encoded.items()}
        for index, (token, start) in splits.items():
            ids_of[index] = (*ids_of[longer[index]][:token], *ids_of_end[texts[index][start:]])
        return [ids_of[index] for index in range(len(texts))]

    def _tokenize(self, texts: Sequence[str]) -> list[tuple[tuple[int, ...], Encoding | None]]:
        """The ids of texts, and the tokenizer's record of each where it keeps one."""
        if not texts:
            return []
        batch = self.tokenizer(
            list(texts),
            add_special_tokens=self.add_special_tokens,
            return_attention_mask=False,
            verbose=False,  # callers refuse or drop what is longer than the context
        )
        all_ids = [tuple(ids[: len(ids) - self._num_added_behind]) for ids in batch["input_ids"]]
        return list(zip(all_ids, batch.encodings or [None] * len(texts), strict=True))

    def _last_split(
        self, ids: tuple[int, ...], encoding: Encoding | None, text: str
    ) -> tuple[int, int]:
        """The last place inside `text` at which it can be split without a change of its ids.

        Args:
            ids: the ids of a text that begins with `text`.
            encoding: the tokenizer's record of it.
            text: the shorter text.

        Returns:
            The index of the token that the split is before and that of its first character; 0 and
            0 if there is none.
        """
        splitting = self._splitting
        if encoding is not None and splitting:
            for index in reversed(range(len(ids))):
                content = splitting.get(ids[index])
                if content is None:
                    continue
                start, _ = encoding.token_to_chars(index) or (0, 0)
                # Not so for an end beyond `text`, a token that takes in the space before it, and
                # characters that are unknown and have the id of an added token.
                if text.startswith(content, start):
                    return index, start
        return 0, 0

    @cached_property
    def _splitting(self) -> dict[int, str]:
        """Added tokens, by id, before which a text can be split without a change of its ids.

        They are found in the text as it is, before a normalizer changes anything.
        """
        tokenizer = self.tokenizer
        if self.add_special_tokens or not tokenizer.is_fast or tokenizer.split_special_tokens:
            return {}
        return {
            index: token.content
            for index, token in tokenizer.added_tokens_decoder.items()
            if not token.normalized
        }

    @cached_property
    def _num_added_behind(self) -> int:
        """Special tokens that the tokenizer adds behind a text, such as an end of text."""
        if not self.add_special_tokens:
            return 0
        text = self.tokenizer("a", add_special_tokens=False)["input_ids"]
        with_special = self.tokenizer("a")["input_ids"]
        before = next(
            start
            for start in range(len(with_special))
            if with_special[start : start + len(text)] == text
        )
        return len(with_special) - before - len(text)
