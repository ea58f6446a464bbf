"""Answers to a suite: replies with their verdicts, and the lines that store them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from reasontrain.data import storage
from reasontrain.tasks.grading import UNFINISHED, Verdict
from reasontrain.types import Episode, Problem, text_of

ProblemSample = tuple[int, int]
"""The key of an answer: index of its problem in the suite and index of the sample, both from 0."""


@dataclass(frozen=True, kw_only=True)
class Reply:
    """The reply of a sampler or an endpoint to a problem.

    `num_tokens` is None if it is unknown. `reasoning` is a thought that the endpoint separated from
    the text; like a thought within <think>, it is stored for readers and never graded.
    `unfinished`, `answer_start` and `episode` are those of `Rollout`.
    """

    text: str
    truncated: bool
    num_tokens: int | None
    reasoning: str = ""
    unfinished: bool = False
    answer_start: int = 0
    episode: Episode | None = None


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A reply to one problem, with its verdict."""

    problem: Problem
    sample: int
    reply: Reply
    verdict: Verdict

    @property
    def unfinished(self) -> bool:
        """The chain of thought did not end, so there is no answer."""
        return self.reply.unfinished or self.verdict.reason == UNFINISHED

    def line(self) -> str:
        """The answer as one line of JSON, which `from_line` reads back without loss."""
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
                "unfinished": self.unfinished,
                "tokens": self.reply.num_tokens,
            }
        )


def from_line(row: Mapping[str, object], problems: Mapping[str, Problem]) -> Answer:
    """Read an answer from the content of a line; `problems` are by id.

    Raises KeyError or TypeError if the line holds no answer to one of these problems.
    """
    sample = row["sample"]
    tokens = row["tokens"]
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
            unfinished=bool(row["unfinished"]),
        ),
        verdict=Verdict(bool(row["correct"]), str(row["extracted"]), str(row["reason"])),
    )


def write_answers(path: Path, answers: Iterable[Answer]) -> None:
    """Write the answers in order and atomically; a file with the same content is not touched."""
    text = "".join(answer.line() for answer in answers)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_bytes() != text.encode():
        storage.replace_text(path, text)


def _question(problem: Problem) -> str:
    """The question as text; for a conversation, its last turn."""
    return problem.prompt if isinstance(problem.prompt, str) else text_of(problem.prompt[-1])
