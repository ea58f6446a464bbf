"""The exact path decides most answers of models, in microseconds."""

from __future__ import annotations

import importlib
import pkgutil
import re
import statistics
import time
from typing import NamedTuple

import pytest

from reasontrain.tasks import grading
from reasontrain.tasks.grading import Grader, extract, words
from tests.tasks.grading.corpus import DATA, needs_solutions, read_lines

MEDIAN_US = 50.0
OTHERS_US = 100.0
"""The median of pairs that are not two integers."""
SHARE = 0.99
"""Distinct answers of models that need no algebra, at the least."""
PASSES = 3


class Timed(NamedTuple):
    """A comparison of a gold answer and an extracted one.

    Attributes:
        is_exact: it needed no algebra.
        spent_us: microseconds from the two strings to the verdict, or to the question to algebra.
        is_integer: both sides are integers, the commonest and cheapest answers.
    """

    is_exact: bool
    spent_us: float
    is_integer: bool


class NoAlgebra:
    """A pool of workers that only counts its questions."""

    def __init__(self) -> None:
        self.num_questions = 0

    def equal(self, pairs: object, limit_s: float) -> str:
        self.num_questions += 1
        return "timeout"

    def close(self) -> None:
        pass


def clear_caches() -> None:
    """Forget all readings, so that every pass costs the same."""
    for module in pkgutil.iter_modules(grading.__path__, f"{grading.__name__}."):
        for item in vars(importlib.import_module(module.name)).values():
            clear = getattr(item, "cache_clear", None)
            if clear:
                clear()


def timed(pairs: list[tuple[str, str, str]]) -> list[Timed]:
    """Compare every (gold, extracted answer, problem) once, without the cache of verdicts."""
    clear_caches()
    grader = Grader(num_workers=1)
    pool = NoAlgebra()
    grader._pool = pool  # type: ignore[assignment]
    results = []
    for gold, answer, problem in pairs:
        before = pool.num_questions
        start = time.perf_counter_ns()
        grader._grade(gold, answer, words.nouns_in(problem, gold, answer))
        spent_us = (time.perf_counter_ns() - start) / 1_000
        is_integer = all(re.fullmatch(r"-?\d+", text) for text in (gold, answer))
        results.append(Timed(pool.num_questions == before, spent_us, is_integer))
    return results


@pytest.mark.slow
@needs_solutions
def test_the_exact_path_takes_microseconds(capsys: pytest.CaptureFixture[str]) -> None:
    pairs = {
        (row["answer"], answer, row["problem"]): None
        for row in read_lines(DATA / "model_solutions_sample.jsonl")
        if (answer := extract.extract(row["completion"], answer_format="any"))
    }
    passes = [timed(list(pairs)) for _ in range(PASSES)]
    exact = [runs for runs in zip(*passes, strict=True) if runs[0].is_exact]
    fastest = [min(run.spent_us for run in runs) for runs in exact]
    others = [us for us, runs in zip(fastest, exact, strict=True) if not runs[0].is_integer]
    share = len(exact) / len(pairs)
    with capsys.disabled():
        print(
            f"\n{len(pairs)} distinct pairs, {share:.2%} decided without algebra; median "
            f"{statistics.median(fastest):.1f} us, of {len(others)} that are not two integers "
            f"{statistics.median(others):.1f} us, 99th percentile "
            f"{statistics.quantiles(fastest, n=100)[98]:.0f} us"
        )
    assert share >= SHARE
    assert statistics.median(fastest) <= MEDIAN_US
    assert statistics.median(others) <= OTHERS_US
