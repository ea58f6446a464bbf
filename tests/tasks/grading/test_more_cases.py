"""Verdicts on written cases of every kind of answer, one file of them: `more_cases.jsonl`."""

from __future__ import annotations

import json
from pathlib import Path

from reasontrain.tasks.grading import Grader, GradeRequest

CASES = Path(__file__).with_name("more_cases.jsonl")


def test_every_case_has_the_expected_verdict() -> None:
    rows = [json.loads(line) for line in CASES.read_text("utf-8").splitlines()]
    with Grader(num_workers=1, limit_s=20.0) as grader:
        verdicts = grader.grade_many(
            [GradeRequest(row["gold"], row["prediction"]) for row in rows], answer_format="any"
        )
    wrong = [
        f"{row['tag']}: {row['gold']!r} / {row['prediction']!r} must be {row['expected']}"
        for row, verdict in zip(rows, verdicts, strict=True)
        if verdict.correct != row["expected"]
    ]
    assert not wrong, "\n".join(wrong)
