"""The protocol of an environment, and one call of it with its result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from reasontrain.types import Problem

Step = tuple[str | None, float | None, bool]
"""An observation, a reward and the end of the conversation."""


@runtime_checkable
class Environment(Protocol):
    """The other side of one conversation.

    Its answers must depend on the problem, the seed and the turns alone: a worker that was killed
    is replaced, and the conversations in it are repeated up to the turn that they have reached.
    """

    def reset(self, problem: Mapping[str, object]) -> str | None:
        """Begin a conversation.

        It gets `seed`, a number of the rollout, too if it has a parameter of this name.

        Args:
            problem: the problem as a dict with `id`, `prompt`, `answer`, `solution` and `about`.

        Returns:
            An observation that follows the problem's prompt, or None.
        """

    def step(self, text: str) -> Step:
        """Answer a turn.

        Args:
            text: the turn, without special tokens.

        Returns:
            The observation before the next turn (None or "" for none), the reward of the turn (None
            for none), and True if the conversation ends here.
        """


@dataclass(frozen=True, kw_only=True)
class EpisodeCall:
    """A call of an environment: `reset` without turns, and otherwise `step` with the last of them.

    Attributes:
        rollout: the rollout's id.
        seed: the number that `reset` gets.
        problem: the problem.
        turns: all turns so far, as text.
    """

    rollout: int
    seed: int
    problem: Problem
    turns: tuple[str, ...] = ()

    @property
    def problem_fields(self) -> dict[str, object]:
        """The problem as an environment gets it."""
        problem = self.problem
        prompt = problem.prompt if isinstance(problem.prompt, str) else list(problem.prompt)
        return {
            "id": problem.id,
            "prompt": prompt,
            "answer": problem.answer,
            "solution": problem.solution,
            "about": dict(problem.about),
        }


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """The result of a call; after a failure the conversation is over.

    Attributes:
        observation: text before the next turn; "" for none.
        reward: the reward of the turn; None if it has none.
        done: the conversation ends here.
        failure: "error", "timeout" or "crash", as of an own reward; None if the call returned.
        message: the failure in words.
        trace: the user's frames, as Python shows them.
        output: text that the call printed.
    """

    observation: str = ""
    reward: float | None = None
    done: bool = False
    failure: Literal["error", "timeout", "crash"] | None = None
    message: str = ""
    trace: str = ""
    output: str = ""
