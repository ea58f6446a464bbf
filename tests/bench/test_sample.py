"""Both sides of a row sample the lengths that were drawn, whatever they are told to batch; on a
model of a few weights.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from reasontrain.bench import sample
from reasontrain.bench.case import BenchMachine, Setup
from reasontrain.bench.workload import drawn_lengths
from reasontrain.data.thought import HardThought, SoftThought

MACHINE = BenchMachine(device=torch.device("cpu"), quick=True, threads=1)
SHAPE = replace(
    sample.SMALL.shape,
    hidden_size=32,
    intermediate_size=48,
    num_layers=1,
    head_dim=8,
    vocab_size=600,
)
SIZE = replace(sample.SMALL, shape=SHAPE, limit=12)
THOUGHT = {"max_tokens": SIZE.limit, "max_answer_tokens": 1, "late": sample.FORCED}
SPEAKING: dict[str, Setup] = {
    "reasontrain": lambda: sample._token_work(SIZE, MACHINE, 64, False),
    "reasontrain, a part waiting": lambda: sample._token_work(SIZE, MACHINE, 16, False),
    "dynamic": lambda: sample._generate_work(SIZE, MACHINE, 64, "dynamic"),
    "static, in parts": lambda: sample._generate_work(SIZE, MACHINE, 24, "static"),
}
THINKING: dict[str, Setup] = {
    "soft": lambda: sample._thought_work(SIZE, MACHINE, SoftThought(**THOUGHT)),
    "hard": lambda: sample._thought_work(SIZE, MACHINE, HardThought(**THOUGHT)),
}


@pytest.mark.parametrize("limit", [12, 128, 1024])
def test_lengths_are_skewed_with_a_mean_of_a_third_of_the_limit(limit: int) -> None:
    lengths = drawn_lengths(64, limit)
    assert len(lengths) == 64
    assert lengths.float().mean().item() == pytest.approx(limit / 3, abs=0.3)
    assert (lengths.min() >= 2, lengths.max()) == (True, limit)
    assert lengths.median() < 0.8 * lengths.float().mean()
    assert lengths.equal(drawn_lengths(64, limit))


@pytest.mark.parametrize("name", SPEAKING)
def test_every_side_ends_each_row_at_its_drawn_length(name: str) -> None:
    with SPEAKING[name]() as work:
        assert list(work().values()) == SIZE.lengths


@pytest.mark.parametrize("name", THINKING)
def test_thoughts_are_as_long_as_drawn_and_followed_by_the_same(name: str) -> None:
    with THINKING[name]() as work:
        forced = len(sample.tokenizer()(sample.FORCED, add_special_tokens=False)["input_ids"])
        assert list(work().values()) == [length + forced + 1 for length in SIZE.lengths]


def test_rows_name_what_they_do() -> None:
    skewed, soft = sample.rows(replace(MACHINE, quick=False))
    assert (skewed.units, soft.units) == (
        ("tokens", sum(sample.SMALL.lengths)),
        ("tokens", sum(sample.SMALL_SOFT.lengths)),
    )
    assert (skewed.work["longest"], soft.work["longest"]) == (256, 128)
    assert len(skewed.peer.variants) == 6


def test_a_quick_run_samples_a_quarter_as_far_and_searches_nothing() -> None:
    skewed, soft = sample.rows(MACHINE)
    assert (skewed.work["longest"], soft.work["longest"]) == (64, 32)
    assert [variant.settings for variant in skewed.peer.variants] == [
        {"batch": 64, "cache": "dynamic"}
    ]
