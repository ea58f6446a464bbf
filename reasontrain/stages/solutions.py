"""Graded solutions, written by the stages `sample` and `trajectories` and read by `pairs`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from reasontrain.data import storage
from reasontrain.data.files import read_file
from reasontrain.types import Message, UserError

ROLLOUTS = "rollouts.jsonl"


@dataclass(frozen=True, kw_only=True)
class Solution:
    """One line of `rollouts.jsonl`.

    `response_ids` are the sampled ids (empty if only the text is known) of the tokenizer with the
    fingerprint `tokenizer` (None if unknown). `tools` and `chat_template_kwargs` are the problem's
    variables of the chat template.
    """

    problem: str
    prompt: str | list[Message]
    answer: str
    response: str
    extracted: str
    correct: bool
    truncated: bool = False
    response_ids: tuple[int, ...] = ()
    tokenizer: str | None = None
    tools: tuple[Mapping[str, object], ...] = ()
    chat_template_kwargs: Mapping[str, object] = field(default_factory=dict)


def write_lines(path: Path, records: Iterable[object]) -> None:
    """Write a JSONL file atomically."""
    storage.replace_text(
        path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    )


def write(path: Path, solutions: Iterable[Solution]) -> None:
    """Write one line per solution."""
    write_lines(path, map(asdict, solutions))


def read(path: Path) -> Iterator[Solution]:
    """Read `rollouts.jsonl`; raise UserError if the file does not hold graded solutions."""
    table = read_file(path)
    for name in ("problem", "prompt", "response", "extracted", "correct"):
        table.require(name)
    for index, row in enumerate(table.rows):
        prompt = row["prompt"]
        ids = row.get("response_ids") or ()
        tools = row.get("tools") or []
        kwargs = row.get("chat_template_kwargs") or {}
        if (
            not isinstance(prompt, str | list)
            or not isinstance(ids, list | tuple)
            or not isinstance(tools, list)
            or not isinstance(kwargs, dict)
        ):
            raise UserError(f"{table.where(index)} is not a graded solution as written by a stage")
        yield Solution(
            problem=str(row["problem"]),
            prompt=prompt,
            answer=str(row.get("answer") or ""),
            response=str(row["response"]),
            extracted=str(row["extracted"]),
            correct=bool(row["correct"]),
            truncated=bool(row.get("truncated")),
            response_ids=tuple(ids),
            tokenizer=str(row["tokenizer"]) if row.get("tokenizer") else None,
            tools=tuple(tools),
            chat_template_kwargs=kwargs,
        )
