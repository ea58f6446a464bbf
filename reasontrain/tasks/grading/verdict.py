"""The verdict of a grader on a response."""

from __future__ import annotations

from dataclasses import dataclass, field

UNFINISHED = "unfinished"
"""The reason of verdicts on responses whose chain of thought did not end."""


@dataclass(frozen=True)
class Verdict:
    """The verdict on a response.

    Attributes:
        correct: the answer is right.
        extracted: the answer in the response; "" if there is none.
        reason: "exact" (text, numbers, lists) or "symbolic" (algebra) for a decision; "no
            answer", "no gold" or "gold unreadable" if the answer or the gold answer is missing;
            "unfinished" if the chain of thought did not end; "too large", "timeout", "memory" or
            "crash" if algebra could not decide. If the task computes rewards itself: "own reward";
            "no reward" if it gave none; "error", "timeout" or "crash" if its function failed.
        gold: the gold answer as it was read from its cell; "" if nothing was compared.
        rule: the rule by which the two were compared, for people; "" if nothing was compared.
    """

    correct: bool
    extracted: str
    reason: str
    gold: str = field(default="", compare=False)
    rule: str = field(default="", compare=False)
