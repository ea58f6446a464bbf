"""The interface of all tasks: problems, a check before grading, grading, and a held-out split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from reasontrain.data.files import BadRows
from reasontrain.data.thought_marks import KNOWN
from reasontrain.tasks.grading import AnswerFormat, Grader, GradeRequest, Verdict, check_gold
from reasontrain.tasks.reward import Reward
from reasontrain.types import Episode, Problem


@dataclass(frozen=True, kw_only=True)
class Response:
    """A response to grade.

    Attributes:
        problem: the problem that it answers.
        text: the response, with its chain of thought if it has one.
        truncated: the response was cut at its length limit.
        unfinished: the chain of thought did not end, so there is no answer.
        answer_start: index in `text` at which the answer begins, after the chain of thought; 0 if
            the marks in `text` are all that is known of it.
        episode: the conversation with an environment; None without one.
    """

    problem: Problem
    text: str
    truncated: bool = False
    unfinished: bool = False
    answer_start: int = 0
    episode: Episode | None = None

    @property
    def answer(self) -> str:
        """The text after the chain of thought; "" if it did not end."""
        text = self.text[self.answer_start :]
        reading = KNOWN.read(text)
        return "" if self.unfinished or reading.unfinished else text[reading.start :]


@dataclass(frozen=True)
class Scored:
    """The reward of a response, the verdict behind it, and further measurements by name.

    A reward of None means that the task cannot score the response, which is left out of training.
    `failure` is the way in which a task's own reward function failed, None if it did not.
    """

    reward: float | None
    verdict: Verdict
    metrics: Mapping[str, float] = field(default_factory=dict)
    failure: str | None = None


class Task:
    """Base class of all tasks; its methods use the common verifier."""

    kind: str
    answer_format: AnswerFormat = "marked"
    """What counts as an answer in training; only tasks that use the verifier have it as a key."""

    has_own_reward: ClassVar[bool] = False
    """The task computes rewards itself, so the recipe's `reward` does not apply."""

    bad_rows: BadRows = "refuse"
    """What becomes of a row that cannot be used, in tasks that read rows."""

    def problems(self) -> Sequence[Problem]:
        """Every problem, ids unique; raise UserError if they cannot be read."""
        raise NotImplementedError

    def files(self) -> tuple[Path, ...]:
        """The local files that problems and rewards come from, as far as they can be listed."""
        return ()

    def check_gradable(
        self, problems: Sequence[Problem], grader: Grader, *, required: bool
    ) -> None:
        """Check before a run that responses to these problems can be graded.

        Without `required`, problems may lack a gold answer. Raises UserError if the check fails.
        """
        check_gold(problems, grader, required=required)

    def grade(
        self,
        responses: Sequence[Response],
        grader: Grader,
        reward: Reward | None = None,
        *,
        answer_format: AnswerFormat = "marked",
    ) -> list[Scored]:
        """Grade responses.

        Args:
            responses: the responses.
            grader: the common verifier.
            reward: the rewards of verdicts; None gives 1 to right answers and 0 to wrong ones.
            answer_format: what counts as an answer.

        Returns:
            Reward and verdict of each response, in order.

        Raises:
            RunError: the task's own reward function fails.
        """
        verdicts = grader.grade_many(
            [
                GradeRequest(
                    response.problem.answer,
                    response.text[response.answer_start :],
                    response.truncated,
                    response.unfinished,
                    response.problem.text,
                )
                for response in responses
            ],
            answer_format=answer_format,
        )
        return self._scored(verdicts, responses, reward)

    def same_answer(self, one: str, other: str, problem: Problem, grader: Grader) -> bool:
        """Compare two extracted answers, as votes of a majority are counted.

        Args:
            one: an extracted answer.
            other: another one.
            problem: the problem that both answer.
            grader: the verifier.
        """
        return grader.same(one, other, problem.text)

    def held_out(self) -> Task | None:
        """The task on a split that it never trains on; None if it has no such split."""
        return None

    @staticmethod
    def _scored(
        verdicts: Sequence[Verdict],
        responses: Sequence[Response],
        reward: Reward | None,
    ) -> list[Scored]:
        """Join the verdicts with their rewards."""
        reward_of = reward or Reward()
        return [
            Scored(reward_of(verdict, response.answer), verdict)
            for verdict, response in zip(verdicts, responses, strict=True)
        ]
