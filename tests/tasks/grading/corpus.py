"""Gold answers of the benchmark files and the collected cases, for trials of the verifier.

The files lie beside a checkout, not in it, because their licences differ.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pytest

DATA = Path(os.environ.get("REASONTRAIN_DATA", Path(__file__).parents[4] / "shared" / "data"))
BENCHMARKS = DATA / "benchmarks" if (DATA / "benchmarks").is_dir() else DATA

needs_benchmarks = pytest.mark.skipif(
    not (BENCHMARKS / "math500.jsonl").is_file(), reason="the benchmark files are not here"
)
needs_cases = pytest.mark.skipif(
    not (DATA / "grader_cases_2.jsonl").is_file(), reason="the case files are not here"
)
needs_solutions = pytest.mark.skipif(
    not (DATA / "model_solutions_sample.jsonl").is_file(), reason="the solutions are not here"
)

_Item = TypeVar("_Item")


class Gold(NamedTuple):
    """A gold answer and the text of the first problem that has it."""

    answer: str
    problem: str


@cache
def golds() -> tuple[Gold, ...]:
    """The different gold answers of all benchmark files."""
    problems: dict[str, str] = {}
    for path in sorted(BENCHMARKS.glob("*.jsonl")):
        for row in read_lines(path):
            problems.setdefault(row["answer"], row["problem"])
    return tuple(Gold(answer, problem) for answer, problem in problems.items())


@cache
def cases(name: str) -> tuple[dict[str, Any], ...]:
    """The rows of a file of collected cases that are not a matter of convention."""
    rows = read_lines(DATA / f"{name}.jsonl")
    return tuple(row for row in rows if "policy" not in row["tags"])


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of JSON lines; texts in it hold other line separators than "\\n"."""
    rows = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(row) for row in rows if row.strip()]


def sample(items: Iterable[_Item], number: int, salt: str = "") -> list[_Item]:
    """As many items as asked for, the same ones whenever the items are the same."""
    return sorted(items, key=lambda item: zlib.crc32(f"{salt}{item!r}".encode()))[:number]
