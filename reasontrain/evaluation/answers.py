"""Answers to a suite: what was said, what it earned, and the line that keeps both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from reasontrain.data import storage
from reasontrain.tasks.grading import Verdict
from reasontrain.types import Problem

ProblemSample = tuple[int, int]
"""Which answer of a suite: the number of its problem, in the order of the suite, and of the sample;
both count from 0.
"""


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What was said to a problem, by whomever.

    `num_tokens` is None where nobody counted. `reasoning` is a thought that came apart from the
    text: it is kept for readers and never graded, as one within <think> is not.
    """

    text: str
    truncated: bool
    num_tokens: int | None
    reasoning: str = ""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A reply to one problem with its verdict."""

    problem: Problem
    sample: int
    reply: Reply
    verdict: Verdict

    def line(self) -> str:
        """One line of a file of answers; `from_line` reads it back without loss."""
        reasoning = {"reasoning": self.reply.reasoning} if self.reply.reasoning else {}
        return storage.json_line(
            {
                "problem": self.problem.id,
                "sample": self.sample,
                "question": _question(self.problem),
                "gold": self.problem.answer,
                "response": self.reply.text,
                **reasoning,
                "correct": self.verdict.correct,
                "extracted": self.verdict.extracted,
                "reason": self.verdict.reason,
                "truncated": self.reply.truncated,
                "tokens": self.reply.num_tokens,
            }
        )


def from_line(row: Mapping[str, object], problems: Mapping[str, Problem]) -> Answer:
    """The answer that a line keeps; raises KeyError or TypeError where it keeps none to one of
    these problems (by id).
    """
    sample, tokens = row["sample"], row["tokens"]
    if not isinstance(sample, int) or not isinstance(tokens, int | None):
        raise TypeError("`sample` and `tokens` are whole numbers")
    return Answer(
        problem=problems[str(row["problem"])],
        sample=sample,
        reply=Reply(
            text=str(row["response"]),
            truncated=bool(row["truncated"]),
            num_tokens=tokens,
            reasoning=str(row.get("reasoning", "")),
        ),
        verdict=Verdict(bool(row["correct"]), str(row["extracted"]), str(row["reason"])),
    )


def write_answers(path: Path, answers: Iterable[Answer]) -> None:
    """Every answer in order; the file is there as a whole or not at all, and one that holds just
    this is left alone.
    """
    text = "".join(answer.line() for answer in answers)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_bytes() != text.encode():
        storage.replace_text(path, text)


def _question(problem: Problem) -> str:
    """What was asked, as text: of a conversation its last turn."""
    return problem.prompt if isinstance(problem.prompt, str) else problem.prompt[-1]["content"]
