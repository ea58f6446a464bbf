"""MATH (Hendrycks et al. 2021, arXiv 2103.03874) and other problems with a LaTeX answer.

AIME, AMC and OlympiadBench have the same form.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from reasontrain.data.files import Source
from reasontrain.tasks.grading import AnswerFormat, last_boxed
from reasontrain.tasks.problems import BOXED, problems_of
from reasontrain.tasks.task import Task
from reasontrain.types import Problem


@dataclass(frozen=True, kw_only=True)
class MathTask(Source, Task):
    """Mathematical problems from a file or the hub (default: `DigitalLearningGmbH/MATH-lighteval`).

    `instruction` ends every prompt. `answer_format` is what counts as an answer: the last box
    (`boxed`), also a stated answer (`marked`), or also the last number (`any`).
    """

    kind: Literal["math"] = "math"
    instruction: str = BOXED
    answer_format: AnswerFormat = "marked"

    def files(self) -> tuple[Path, ...]:
        """See `Task`."""
        return () if self.path is None else (Path(self.path),)

    def problems(self) -> list[Problem]:
        """Every problem; raise UserError if the data cannot be read."""
        source = (
            self
            if self.path or self.hub
            else replace(self, hub="DigitalLearningGmbH/MATH-lighteval")
        )
        return problems_of(
            source.table(), self.columns, instruction=self.instruction, split=split_answer
        )


def split_answer(answer: str, solution: str) -> tuple[str, str]:
    """Return (gold, solution) of an answer cell and a solution cell.

    If the answer cell is empty, the gold answer is the last box of the solution, or "" without one.
    """
    return answer.strip() or (last_boxed(solution) or "").strip(), solution
