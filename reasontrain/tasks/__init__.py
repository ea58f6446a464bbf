"""Problems, and how a response to one becomes a reward: a task knows its problems, the common
verifier grades the answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from reasontrain.tasks.arithmetic import Arithmetic
from reasontrain.tasks.grading import Grader, Verdict, check_gold
from reasontrain.tasks.gsm8k import Gsm8k
from reasontrain.tasks.images import ImageTask
from reasontrain.tasks.math import MathTask
from reasontrain.tasks.offline import OfflineTask, PairTask, RolloutTask
from reasontrain.tasks.python import PythonTask
from reasontrain.tasks.reward import Reward
from reasontrain.types import Problem

__all__ = [
    "Arithmetic",
    "Grader",
    "Gsm8k",
    "ImageTask",
    "MathTask",
    "OfflineTask",
    "PairTask",
    "PythonTask",
    "Reward",
    "RolloutTask",
    "Scored",
    "Task",
    "TaskSettings",
    "Verdict",
    "check_gold",
    "score",
]

TaskSettings = Arithmetic | Gsm8k | MathTask | ImageTask | PythonTask | PairTask | RolloutTask
"""What may stand under `task` in a recipe; `kind` chooses."""


@runtime_checkable
class Task(Protocol):
    """Where problems come from."""

    def problems(self) -> Sequence[Problem]:
        """Every problem, ids unique; raises UserError where they cannot be had."""
        ...


@dataclass(frozen=True)
class Scored:
    """What a response earned, and why."""

    reward: float
    verdict: Verdict


def score(
    task: Task,
    answers: Sequence[tuple[Problem, str]],
    grader: Grader,
    reward: Reward | None = None,
    *,
    last_number: bool = True,
) -> list[Scored]:
    """Reward (problem, response) pairs, in order: by the verifier (1 or 0, or `reward`), or what
    the user's own function says.

    Without `last_number`, a response that marks no answer has none. An own reward of at least 1
    counts as a right answer. A caption is right where it is the gold one, word by word.
    """
    if isinstance(task, PythonTask):
        rewards = [task.reward(problem, text) for problem, text in answers]
        return [Scored(reward, Verdict(reward >= 1.0, "", "own reward")) for reward in rewards]
    if isinstance(task, ImageTask):
        verdicts = [
            Verdict(text.split() == problem.answer.split(), text, "exact")
            for problem, text in answers
        ]
    else:
        verdicts = grader.grade_many(
            [(problem.answer, text) for problem, text in answers], last_number=last_number
        )
    worth = reward or Reward()
    return [
        Scored(worth(verdict, text), verdict)
        for verdict, (_, text) in zip(verdicts, answers, strict=True)
    ]
