"""MATH (Hendrycks et al. 2021, arXiv 2103.03874) and other problems with a LaTeX answer.

AIME, AMC and OlympiadBench have the same form.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from reasontrain.data.files import Source, files_of
from reasontrain.tasks.grading import AnswerFormat, last_boxed
from reasontrain.tasks.grading.gold_mark import marked_gold
from reasontrain.tasks.problems import BOXED, problems_of
from reasontrain.tasks.task import Task
from reasontrain.types import Problem


@dataclass(frozen=True, kw_only=True)
class MathTask(Source, Task):
    """Mathematical problems from a file or the hub (default: `DigitalLearningGmbH/MATH-lighteval`).

    `instruction` ends every prompt; by default, it asks for a boxed answer after problems that are
    texts, and conversations stay as they are. `answer_format` is what counts as an answer: the last
    box (`boxed`), also a stated answer (`marked`), or also the last number (`any`).
    """

    kind: Literal["math"] = "math"
    instruction: str | None = None
    answer_format: AnswerFormat = "marked"

    def files(self) -> tuple[Path, ...]:
        """See `Task`."""
        return () if self.path is None else tuple(files_of(self.path))

    def problems(self) -> list[Problem]:
        """Every problem; raise UserError if the data cannot be read."""
        return self._problems

    @cached_property
    def _problems(self) -> list[Problem]:
        source = (
            self
            if self.path or self.hub
            else replace(self, hub="DigitalLearningGmbH/MATH-lighteval")
        )
        return problems_of(
            source,
            instruction=self.instruction,
            default_instruction=BOXED,
            split=split_answer,
        )


def split_answer(answer: str, solution: str) -> tuple[str, str]:
    """Return (gold, solution) of an answer cell and a solution cell.

    The gold answer is what follows GSM8K's mark in the answer cell, or all of the cell. If it is
    empty, the gold answer is the last box of the solution, else what follows its mark, else "".
    """
    gold = marked_gold(answer) or answer or last_boxed(solution) or marked_gold(solution) or ""
    return gold.strip(), solution
