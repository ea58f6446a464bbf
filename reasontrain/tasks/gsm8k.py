"""GSM8K (Cobbe et al. 2021, arXiv 2110.14168): word problems whose answer is one number."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from reasontrain.data.files import Source, files_of
from reasontrain.tasks.grading import AnswerFormat
from reasontrain.tasks.grading.gold_mark import HASHES, THOUSANDS, marked_gold
from reasontrain.tasks.problems import BOXED, problems_of
from reasontrain.tasks.task import Task
from reasontrain.types import Problem


@dataclass(frozen=True, kw_only=True)
class Gsm8k(Source, Task):
    """Problems of GSM8K from a file or the hub (default: `openai/gsm8k`).

    `instruction` ends every prompt; by default, it asks for a boxed answer after problems that are
    texts, and conversations stay as they are. `answer_format` is what counts as an answer: the last
    box (`boxed`), also a stated answer (`marked`), or also the last number (`any`).
    """

    kind: Literal["gsm8k"] = "gsm8k"
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
        source = self if self.path or self.hub else replace(self, hub="openai/gsm8k", subset="main")
        return problems_of(
            source,
            instruction=self.instruction,
            default_instruction=BOXED,
            split=split_answer,
        )


def split_answer(answer: str, solution: str) -> tuple[str, str]:
    """Return (gold, solution) of an answer cell and a solution cell.

    The gold answer follows the mark `####` of the answer cell or else of the solution; without a
    mark it is the answer cell. An answer cell of several lines is the solution if there is no
    other.
    """
    marked = marked_gold(answer)
    if marked is None and not answer.strip():
        return marked_gold(solution) or "", solution
    gold = marked if marked is not None else THOUSANDS.sub("", answer.strip())
    is_solution = marked is not None and not answer.strip().startswith(HASHES)
    return gold, solution or (answer if is_solution else "")
