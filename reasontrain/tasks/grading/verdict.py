"""What a grader says of an answer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """Whether an answer is right, the answer that was found in the text ("" where none was), and
    how it was decided.

    `reason` is one of: "exact" (text, numbers, lists), "symbolic" (math-verify), "no answer", "gold
    unreadable", "too large", "timeout", "memory", "crash", "own reward".
    """

    correct: bool
    extracted: str
    reason: str
