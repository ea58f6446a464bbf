"""Reward of a response by its verdict."""

from __future__ import annotations

from dataclasses import dataclass

from reasontrain.tasks.grading import Verdict, last_boxed


@dataclass(frozen=True, kw_only=True)
class Reward:
    """Rewards of right answers, of wrong answers in a closed box, and of all other responses.

    Soft Tokens (arXiv 2509.19170, eq. 11) gives 100, 10 and 0.
    """

    right: float = 1.0
    boxed: float = 0.0
    wrong: float = 0.0

    def __call__(self, verdict: Verdict, text: str) -> float:
        """Return the reward of a response with this verdict."""
        if verdict.correct:
            return self.right
        return (
            self.boxed if self.boxed != self.wrong and last_boxed(text) is not None else self.wrong
        )
