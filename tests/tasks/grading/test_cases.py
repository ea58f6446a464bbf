"""Agreement with the collected cases, of which none may be accepted wrongly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from reasontrain.tasks.grading import Grader, GradeRequest
from tests.tasks.grading.corpus import cases, needs_cases

pytestmark = needs_cases


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    with Grader(num_workers=1, limit_s=20.0) as grader:
        yield grader


@pytest.mark.parametrize(("name", "at_least"), [("grader_cases", 0.995), ("grader_cases_2", 0.98)])
def test_agreement_with_the_collected_cases(grader: Grader, name: str, at_least: float) -> None:
    rows = cases(name)
    assert_agreement(grader, rows, at_least)


def test_agreement_with_whole_completions(grader: Grader) -> None:
    """Extraction and equality together, without the cases of bare answers beside them."""
    rows = [row for row in cases("grader_cases") if row["kind"] == "completion"]
    assert_agreement(grader, rows, 0.995)


def assert_agreement(grader: Grader, rows: Sequence[dict[str, Any]], at_least: float) -> None:
    verdicts = grader.grade_many(
        [GradeRequest(row["gold"], row["prediction"]) for row in rows], answer_format="any"
    )
    accepted, refused = (
        [
            f"{row['id']} ({','.join(row['tags'])})"
            for row, verdict in zip(rows, verdicts, strict=True)
            if verdict.correct == is_accepted and row["expected"] != is_accepted
        ]
        for is_accepted in (True, False)
    )
    assert not accepted, f"{len(accepted)} accepted wrongly: {', '.join(accepted)}"
    assert len(rows) - len(refused) >= at_least * len(rows), (
        f"{len(refused)} of {len(rows)} refused wrongly: {', '.join(refused)}"
    )
