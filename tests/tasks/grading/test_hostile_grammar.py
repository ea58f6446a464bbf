"""Answers made against the grammar of answers cost little, mislead nobody and disturb no other."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from reasontrain.tasks.grading import Grader, GradeRequest
from tests.tasks.grading.hostile import ordinary
from tests.tasks.grading.hostile_grammar import FAMILIES, hostile_grammar

LIMIT_S = 1.0
AT_REST_S = 0.5
"""Computing outside of the workers that one answer may cost; the slowest is at a tenth of it."""


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    with Grader(num_workers=1, limit_s=LIMIT_S) as grader:
        yield grader


@pytest.mark.parametrize("family", FAMILIES)
def test_hostile_answers_are_wrong_and_cost_little(grader: Grader, family: str) -> None:
    faults = []
    for gold, answer, right in FAMILIES[family]:
        start = time.thread_time()
        verdict = grader.grade(gold, rf"\boxed{{{answer}}}", answer_format="any")
        spent_s = time.thread_time() - start
        if verdict.correct != right or verdict.reason in ("crash", "memory"):
            faults.append((gold[:40], answer[:60], len(answer), verdict.reason))
        if spent_s > AT_REST_S:
            faults.append((gold[:40], answer[:60], len(answer), f"{spent_s:.2f} s"))
    assert not faults


def test_ordinary_answers_beside_hostile_ones_stay_as_they_are(grader: Grader) -> None:
    hostile = hostile_grammar()
    assert len(hostile) >= 100
    normal = ordinary(2 * len(hostile))
    requests = [
        request
        for index, (gold, answer, _) in enumerate(hostile)
        for request in (
            GradeRequest(gold, rf"\boxed{{{answer}}}"),
            *(GradeRequest(gold, text) for gold, text, _ in normal[2 * index : 2 * index + 2]),
        )
    ]
    verdicts = grader.grade_many(requests, answer_format="any")
    beside = [verdict.correct for index, verdict in enumerate(verdicts) if index % 3]
    assert beside == [right for _, _, right in normal]
