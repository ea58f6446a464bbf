"""The tiny tokenizer loses nothing, the template writes Qwen3's turns, and building twice gives the
same bytes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis.strategies import characters, text
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from reasontrain.models import testbed
from reasontrain.models.testbed import SHAPES, VOCABULARY_SIZE, TinyShape, build, tokenizer
from reasontrain.tasks.arithmetic import Arithmetic
from reasontrain.types import UserError

TOKENIZER = tokenizer()
TINY = TinyShape(
    hidden_size=32, intermediate_size=32, num_layers=1, num_heads=2, num_key_value_heads=1
)


def round_trip(words: str) -> str:
    return TOKENIZER.decode(TOKENIZER(words, add_special_tokens=False).input_ids)


@settings(max_examples=300, deadline=None)
@given(words=text(characters(exclude_categories=["Cs"])))
def test_any_text_round_trips(words: str) -> None:
    assert round_trip(words) == words


@pytest.mark.parametrize(
    "words",
    [
        "  two  spaces ",
        "\r\n\t\n\n x",
        "e\u0301 \u00e9 ½ ٣ 数学",
        "a\u0000b",
        "<|im_start|>user\n<think>\n\n</think> .",
    ],
)
def test_awkward_texts_round_trip(words: str) -> None:
    assert round_trip(words) == words


def corpus() -> list[str]:
    """The first lines of each benchmark if the data folder is there, and generated problems."""
    folder = Path(os.environ.get("REASONTRAIN_DATA", ""), "benchmarks")
    lines = [
        line
        for file in sorted(folder.glob("*.jsonl"))
        for line in file.read_text(encoding="utf-8").splitlines()[:200]
    ]
    records = [json.loads(line) for line in lines]
    return [
        record[key] for record in records for key in ("problem", "solution") if key in record
    ] + [
        text
        for p in Arithmetic(num_problems=100, split="test").problems()
        for text in (str(p.prompt), p.solution)
    ]


def test_benchmarks_round_trip() -> None:
    assert [words for words in corpus() if round_trip(words) != words] == []


def test_digits_are_single_tokens() -> None:
    tokens = TOKENIZER.tokenize("Tom has 1207 books: 3.14*42=99")
    assert [t for t in tokens if any(c.isdigit() for c in t)] == list("1207") + list("314") + list(
        "4299"
    )
    assert not [
        t for t in TOKENIZER.get_vocab() if len(t) > 1 and any(c in "0123456789" for c in t)
    ]


def test_an_answer_is_written_in_few_tokens() -> None:
    tokens = TOKENIZER.tokenize(
        "<think>\nThen Tom has 12-8=4\n</think>\n\nThe answer is \\boxed{4}."
    )
    assert (
        " ".join(tokens)
        == "<think> Ċ Then ĠTom Ġhas Ġ 1 2 - 8 = 4 Ċ </think> ĊĊ The Ġanswer Ġis Ġ\\boxed { 4 } ."
    )


def test_special_tokens() -> None:
    assert len(TOKENIZER) == VOCABULARY_SIZE
    assert (TOKENIZER.eos_token, TOKENIZER.pad_token, TOKENIZER.unk_token) == (
        "<|im_end|>",
        "<|endoftext|>",
        None,
    )
    ids = TOKENIZER("<|im_start|><think>\n</think><|im_end|><|endoftext|>").input_ids
    assert len(ids) == 6
    assert TOKENIZER.decode(ids, skip_special_tokens=True) == "<think>\n</think>"


SYSTEM, QUESTION = (
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is 1+1?"},
)
ANSWER = {"role": "assistant", "content": "<think>\n1+1=2\n</think>\n\nThe answer is \\boxed{2}."}
ASKED = "<|im_start|>user\nWhat is 1+1?<|im_end|>\n"


def test_template_asks() -> None:
    assert TOKENIZER.apply_chat_template([QUESTION], tokenize=False) == ASKED
    for options in ({}, {"enable_thinking": True}):
        prompt = TOKENIZER.apply_chat_template(
            [SYSTEM, QUESTION], tokenize=False, add_generation_prompt=True, **options
        )
        assert (
            prompt
            == "<|im_start|>system\nBe brief.<|im_end|>\n" + ASKED + "<|im_start|>assistant\n"
        )


def test_template_without_thinking_gives_an_empty_thought() -> None:
    prompt = TOKENIZER.apply_chat_template(
        [QUESTION], tokenize=False, add_generation_prompt=True, enable_thinking=False
    )
    assert prompt == ASKED + "<|im_start|>assistant\n<think>\n\n</think>\n\n"


def test_template_drops_thoughts_before_the_last_question_only() -> None:
    said = f"<|im_start|>assistant\n{ANSWER['content']}<|im_end|>\n"
    assert TOKENIZER.apply_chat_template([QUESTION, ANSWER], tokenize=False) == ASKED + said
    short = "<|im_start|>assistant\nThe answer is \\boxed{2}.<|im_end|>\n"
    assert (
        TOKENIZER.apply_chat_template([QUESTION, ANSWER, QUESTION, ANSWER], tokenize=False)
        == ASKED + short + ASKED + said
    )


def digests(folder: Path) -> dict[str, str]:
    return {file.name: sha256(file.read_bytes()).hexdigest() for file in sorted(folder.iterdir())}


def test_building_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    """The second time in another process, where hashing is seeded otherwise."""
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    build(tmp_path / "here", TINY)
    assert torch.equal(torch.random.get_rng_state(), before)
    code = (
        f"from pathlib import Path; from reasontrain.models.testbed import *; "
        f"build(Path({str(tmp_path / 'there')!r}), {TINY!r})"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    here = digests(tmp_path / "here")
    assert here == digests(tmp_path / "there")
    assert {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    } <= here.keys()


def test_another_seed_gives_other_weights(tmp_path: Path) -> None:
    build(tmp_path / "0", TINY)
    build(
        tmp_path / "1",
        TinyShape(
            hidden_size=32,
            intermediate_size=32,
            num_layers=1,
            num_heads=2,
            num_key_value_heads=1,
            seed=1,
        ),
    )
    first, second = digests(tmp_path / "0"), digests(tmp_path / "1")
    assert {name for name in first if first[name] != second[name]} == {"model.safetensors"}


def test_a_model_loads_as_it_was_shaped(tmp_path: Path) -> None:
    build(tmp_path, SHAPES["student"])
    model, words = (
        AutoModelForCausalLM.from_pretrained(tmp_path),
        AutoTokenizer.from_pretrained(tmp_path),
    )
    config = model.config
    assert (config.model_type, config.head_dim, config.max_position_embeddings) == (
        "qwen3",
        32,
        4096,
    )
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert model.dtype == torch.float32
    assert 300_000 < model.num_parameters() < 400_000
    assert GenerationConfig.from_pretrained(tmp_path).eos_token_id == [
        words.eos_token_id,
        words.pad_token_id,
    ]
    assert words.get_vocab() == TOKENIZER.get_vocab()
    question = words.apply_chat_template([QUESTION], tokenize=False, add_generation_prompt=True)
    assert question == ASKED + "<|im_start|>assistant\n"


@pytest.mark.parametrize("name", testbed.SHAPES)
def test_a_shipped_model_is_the_one_that_its_recipe_made(name: str) -> None:
    directory = testbed.MODELS / name
    made = json.loads((directory / testbed.MADE).read_text())
    assert sha256((directory / testbed.WEIGHTS).read_bytes()).hexdigest() == made["sha256"]
    assert (Path(__file__).parents[2] / made["recipe"]).exists()
    assert json.loads((directory / "tokenizer.json").read_text()) == json.loads(
        testbed.tokenizer().backend_tokenizer.to_str()
    )
    accuracy = made["accuracy"]["heldout"]["value"]
    assert {
        "teacher": accuracy > 0.85,
        "student": 0.15 < accuracy < 0.45,
        "noisy": 0.3 < accuracy < 0.8,
    }[name]


def test_the_shipped_models_are_small() -> None:
    assert (
        sum(path.stat().st_size for path in testbed.MODELS.rglob("*") if path.is_file())
        <= 6_000_000
    )


def test_only_a_finished_run_of_the_testbed_is_shipped(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not a finished run of recipes/tiny/testbed_"):
        testbed.ship(tmp_path)
