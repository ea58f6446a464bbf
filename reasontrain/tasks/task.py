"""The interface of all tasks: problems, a check before grading, grading, and a held-out split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from reasontrain.data.files import BadRows
from reasontrain.tasks.grading import Grader, Verdict, check_gold
from reasontrain.tasks.reward import Reward
from reasontrain.types import Problem


@dataclass(frozen=True)
class Scored:
    """The reward of a response, and the verdict behind it."""

    reward: float
    verdict: Verdict


class Task:
    """Base class of all tasks; its methods use the common verifier."""

    kind: str

    has_own_reward: ClassVar[bool] = False
    """The task computes rewards itself, so the recipe's `reward` does not apply."""

    bad_rows: BadRows = "refuse"
    """What becomes of a row that cannot be used, in tasks that read rows."""

    def problems(self) -> Sequence[Problem]:
        """Every problem, ids unique; raise UserError if they cannot be read."""
        raise NotImplementedError

    def check_gradable(
        self, problems: Sequence[Problem], grader: Grader, *, required: bool
    ) -> None:
        """Check before a run that responses to these problems can be graded.

        Without `required`, problems may lack a gold answer. Raises UserError if the check fails.
        """
        check_gold(problems, grader, required=required)

    def grade(
        self,
        responses: Sequence[tuple[Problem, str]],
        grader: Grader,
        reward: Reward | None = None,
        *,
        last_number: bool = True,
    ) -> list[Scored]:
        """Grade (problem, response) pairs.

        Args:
            responses: the pairs.
            grader: the common verifier.
            reward: the rewards of verdicts; None gives 1 to right answers and 0 to wrong ones.
            last_number: use the last formula or number of a response without a marked answer.

        Returns:
            Reward and verdict of each pair, in order.

        Raises:
            RunError: the task's own reward function fails.
        """
        verdicts = grader.grade_many(
            [(problem.answer, text) for problem, text in responses], last_number=last_number
        )
        return self._scored(verdicts, responses, reward)

    def held_out(self) -> Task | None:
        """The task on a split that it never trains on; None if it has no such split."""
        return None

    @staticmethod
    def _scored(
        verdicts: Sequence[Verdict],
        responses: Sequence[tuple[Problem, str]],
        reward: Reward | None,
    ) -> list[Scored]:
        """Join the verdicts with their rewards."""
        reward_of = reward or Reward()
        return [
            Scored(reward_of(verdict, text), verdict)
            for verdict, (_, text) in zip(verdicts, responses, strict=True)
        ]
