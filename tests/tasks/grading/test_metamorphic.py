"""Other spellings of every gold answer are right, and near misses of it are wrong."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import pytest

from reasontrain.tasks.grading import Grader, GradeRequest
from tests.tasks.grading import rewritings_changed, rewritings_kept  # noqa: F401  # they register
from tests.tasks.grading.corpus import Gold, golds, needs_benchmarks, sample
from tests.tasks.grading.oracle import same_value, value
from tests.tasks.grading.rewritings import CHANGING, KEEPING, Response, Rewriting, pair

pytestmark = needs_benchmarks

SAMPLE = 25
"""Golds per rewriting that are tried where the tests are not slow."""
ACCEPTED = 0.995

Case = tuple[Gold, str | tuple[str, str]]


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    with Grader(num_workers=1, limit_s=20.0) as grader:
        yield grader


@cache
def applied(rewriting: Rewriting) -> tuple[Case, ...]:
    """The golds that a rewriting applies to, each with what it makes of it."""
    results = ((gold, rewriting.apply(gold)) for gold in golds())
    return tuple((gold, result) for gold, result in results if result)


def judged(grader: Grader, cases: list[Case]) -> tuple[list[str], list[str]]:
    """Right and wrong pairs of a gold answer and a response, for people."""
    pairs = [(*pair(gold, result), gold.problem) for gold, result in cases]
    verdicts = grader.grade_many(
        [GradeRequest(answer, text, problem=problem) for answer, text, problem in pairs]
    )
    right: list[str] = []
    wrong: list[str] = []
    for (answer, text, _), verdict in zip(pairs, verdicts, strict=True):
        place = right if verdict.correct else wrong
        place.append(f"{answer!r} / {text!r} ({verdict.reason})")
    return right, wrong


def by_name(rewriting: Rewriting) -> str:
    return rewriting.name


def assert_kept(grader: Grader, cases: list[Case]) -> None:
    right, wrong = judged(grader, cases)
    shown = "\n".join(wrong[:8])
    assert len(right) >= ACCEPTED * len(cases), f"{len(wrong)} of {len(cases)} refused:\n{shown}"


def assert_changed(grader: Grader, cases: list[Case]) -> None:
    right, _ = judged(grader, cases)
    assert not right, f"{len(right)} of {len(cases)} accepted:\n" + "\n".join(right[:8])


@pytest.mark.parametrize("rewriting", KEEPING, ids=by_name)
def test_other_spellings_are_right(grader: Grader, rewriting: Rewriting) -> None:
    assert_kept(grader, sample(applied(rewriting), SAMPLE))


@pytest.mark.parametrize("rewriting", CHANGING, ids=by_name)
def test_near_misses_are_wrong(grader: Grader, rewriting: Rewriting) -> None:
    assert_changed(grader, sample(applied(rewriting), SAMPLE))


@pytest.mark.slow
@pytest.mark.parametrize("rewriting", KEEPING, ids=by_name)
def test_other_spellings_of_all_golds_are_right(grader: Grader, rewriting: Rewriting) -> None:
    assert_kept(grader, list(applied(rewriting)))


@pytest.mark.slow
@pytest.mark.parametrize("rewriting", CHANGING, ids=by_name)
def test_near_misses_of_all_golds_are_wrong(grader: Grader, rewriting: Rewriting) -> None:
    assert_changed(grader, list(applied(rewriting)))


def test_every_rewriting_applies_and_keeps_or_changes_the_value() -> None:
    """A second evaluation agrees wherever it can read both sides."""
    verified = 0
    for index, rewriting in enumerate((*KEEPING, *CHANGING)):
        is_kept = index < len(KEEPING)
        cases = applied(rewriting)
        assert len(cases) >= rewriting.at_least, rewriting.name
        for gold, result in cases:
            answer, text = (gold.answer, result) if isinstance(result, str) else result
            one = value(answer)
            other = None if isinstance(text, Response) else value(text)
            if one is not None and other is not None:
                verified += 1
                assert same_value(one, other) == is_kept, (rewriting.name, answer, text)
    assert len(KEEPING) >= 30
    assert len(CHANGING) >= 30
    assert verified > 50_000


def test_every_gold_is_right_for_itself(grader: Grader) -> None:
    wrong = [
        gold.answer
        for gold, verdict in zip(
            golds(),
            grader.grade_many(
                [
                    GradeRequest(gold.answer, rf"\boxed{{{gold.answer}}}", problem=gold.problem)
                    for gold in golds()
                ]
            ),
            strict=True,
        )
        if not verdict.correct
    ]
    assert not wrong
