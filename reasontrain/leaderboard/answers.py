"""Files of answers: verdicts for the comparison of rows, and all answers for the pages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from reasontrain.data.storage import json_lines
from reasontrain.metrics.accuracy import mean_per_problem, pass_per_problem
from reasontrain.report.numbers import Json
from reasontrain.types import UserError


@dataclass(frozen=True, kw_only=True)
class AnswerRecord:
    """One response and its verdict; `question` is empty if the file has none."""

    problem: str
    question: str
    gold: str
    response: str
    correct: bool
    extracted: str
    reason: str
    truncated: bool


@dataclass(frozen=True)
class Verdicts:
    """Gold answers and verdicts by problem; verdicts are in the order of sampling."""

    gold: Mapping[str, str]
    correct: Mapping[str, tuple[bool, ...]]

    def scores(self, metric: str, problems: tuple[str, ...]) -> Float64[np.ndarray, " M"] | None:
        """Scores [M] of the problems, 0 for one without answers.

        None for a metric that is not a mean over problems.
        """
        name, _, k = metric.partition("@")
        if name not in {"accuracy", "pass"} or not self.correct:
            return None
        num_samples = len(next(iter(self.correct.values())))
        wrong = (False,) * num_samples
        correct_MS = np.array(
            [self.correct.get(problem, wrong) for problem in problems], dtype=bool
        )
        return (
            pass_per_problem(correct_MS, int(k)) if name == "pass" else mean_per_problem(correct_MS)
        )


def read_answers(path: Path) -> tuple[AnswerRecord, ...]:
    """Read all answers of a file, in order."""
    return tuple(_answer(row, where) for row, where in json_lines(path))


def verdicts(path: Path) -> Verdicts:
    """Read the verdicts of a file; raise UserError if problems have unequal numbers of answers."""
    gold: dict[str, str] = {}
    correct: dict[str, list[bool]] = {}
    for answer in read_answers(path):
        gold[answer.problem] = answer.gold
        correct.setdefault(answer.problem, []).append(answer.correct)
    if len({len(several) for several in correct.values()}) > 1:
        raise UserError(
            f"{path}: problems have different numbers of answers, so the file is incomplete; "
            f"evaluate again"
        )
    return Verdicts(gold, {problem: tuple(several) for problem, several in correct.items()})


def _answer(row: Mapping[str, Json], where: str) -> AnswerRecord:
    problem = row.get("problem")
    correct = row.get("correct")
    if problem is None or not isinstance(correct, bool):
        raise UserError(
            f'{where}: expected an answer with "problem" and "correct", found {sorted(row)}'
        )
    return AnswerRecord(
        problem=str(problem),
        question=_text(row.get("question")),
        gold=_text(row.get("gold")),
        response=_text(row.get("response")),
        correct=correct,
        extracted=_text(row.get("extracted")),
        reason=_text(row.get("reason")),
        truncated=row.get("truncated") is True,
    )


def _text(value: Json) -> str:
    return "" if value is None else str(value)
