"""Answers that algebra decides: both grade them alike, and no run repeats another's."""

from __future__ import annotations

import pytest

from reasontrain.bench.grade import PAIRS, answers, grader_work, math_verify_work
from reasontrain.tasks import Grader


def test_both_sides_find_six_of_eight_right_in_every_run() -> None:
    with grader_work(16, 1) as graded, math_verify_work(16) as verified:
        assert [graded(), verified(), graded(), verified()] == [{"right": 12.0}] * 4


@pytest.mark.parametrize(
    "number", [2, 64, 832]
)  # a difference that algebra unfolds 64 times would be a matter of patience
def test_only_algebra_decides_them(number: int) -> None:
    with Grader(num_workers=1) as grader:
        verdicts = grader.grade_many(answers(number - 2, len(PAIRS)))
    assert [verdict.reason for verdict in verdicts] == ["symbolic"] * 8
    assert [verdict.correct for verdict in verdicts] == [
        True,
        True,
        True,
        True,
        False,
        False,
        True,
        True,
    ]


def test_no_answer_comes_twice() -> None:
    first, second = answers(0, 160), answers(160, 160)
    assert len({*first, *second}) == 320
