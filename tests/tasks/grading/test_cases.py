"""Agreement with the collected cases, of which none may be accepted wrongly."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import pytest

from reasontrain.tasks.grading import Grader, GradeRequest
from tests.docs import scorers
from tests.tasks.grading.corpus import cases, needs_cases

pytestmark = needs_cases


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    with Grader(num_workers=1, limit_s=20.0) as grader:
        yield grader


@cache
def accepted(grader: Grader, name: str) -> tuple[bool, ...]:
    """Verdicts on a file of cases."""
    requests = [GradeRequest(row["gold"], row["prediction"]) for row in cases(name)]
    return tuple(one.correct for one in grader.grade_many(requests, answer_format="any"))


@pytest.mark.parametrize(("name", "at_least"), [("grader_cases", 0.995), ("grader_cases_2", 0.98)])
def test_agreement_with_the_collected_cases(grader: Grader, name: str, at_least: float) -> None:
    rows = cases(name)
    wrongly_accepted, wrongly_refused = (
        [
            f"{row['id']} ({','.join(row['tags'])})"
            for row, verdict in zip(rows, accepted(grader, name), strict=True)
            if verdict == is_accepted and row["expected"] != is_accepted
        ]
        for is_accepted in (True, False)
    )
    assert not wrongly_accepted, (
        f"{len(wrongly_accepted)} accepted wrongly: {', '.join(wrongly_accepted)}"
    )
    assert len(rows) - len(wrongly_refused) >= at_least * len(rows), (
        f"{len(wrongly_refused)} of {len(rows)} refused wrongly: {', '.join(wrongly_refused)}"
    )


def test_agreement_with_whole_completions(grader: Grader) -> None:
    """Extraction and equality together, without the bare answers beside them in the file."""
    refused = [
        row["id"]
        for row, verdict in zip(
            cases("grader_cases"), accepted(grader, "grader_cases"), strict=True
        )
        if row["kind"] == "completion" and row["expected"] and not verdict
    ]
    assert len(refused) <= 1, f"{len(refused)} of 382 refused: {refused}"


@pytest.mark.parametrize("name", scorers.FILES)
def test_the_published_figures_are_current(grader: Grader, name: str) -> None:
    pairs = zip((row["expected"] for row in cases(name)), accepted(grader, name), strict=True)
    published = scorers.figures()["reasontrain"]["counts"][name]
    assert scorers.counted(pairs)._asdict() == published, (
        "run `python -m tests.docs.scorers reasontrain`, then `make map`"
    )
