"""GSM8K (Cobbe et al. 2021, arXiv 2110.14168): word problems whose answer is one number."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from reasontrain.data.files import Source
from reasontrain.tasks.grading import AnswerFormat
from reasontrain.tasks.problems import BOXED, problems_of
from reasontrain.tasks.task import Task
from reasontrain.types import Problem


@dataclass(frozen=True, kw_only=True)
class Gsm8k(Source, Task):
    """Problems of GSM8K from a file or the hub (default: `openai/gsm8k`).

    `instruction` ends every prompt. `answer_format` is what counts as an answer: the last box
    (`boxed`), also a stated answer (`marked`), or also the last number (`any`).
    """

    kind: Literal["gsm8k"] = "gsm8k"
    instruction: str = BOXED
    answer_format: AnswerFormat = "marked"

    def files(self) -> tuple[Path, ...]:
        """See `Task`."""
        return () if self.path is None else (Path(self.path),)

    def problems(self) -> list[Problem]:
        """Every problem; raise UserError if the data cannot be read."""
        source = self if self.path or self.hub else replace(self, hub="openai/gsm8k", subset="main")
        return problems_of(
            source.table(), self.columns, instruction=self.instruction, split=split_answer
        )


def split_answer(answer: str, solution: str) -> tuple[str, str]:
    """Return (gold, solution) of an answer cell and a solution cell.

    The gold answer is the number after the last `####` of either cell, or the whole answer cell.
    """
    solution = solution or (answer if "####" in answer else "")
    gold = answer if answer.strip() or "####" not in solution else solution
    return gold.rpartition("####")[2].strip().replace(",", ""), solution
