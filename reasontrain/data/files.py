"""Files and hub data sets become tables of rows, with exact errors: which file, which line, which
column.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from reasontrain.types import AtLeastOne, UserError

if TYPE_CHECKING:
    from datasets import Dataset

Row = Mapping[str, object]
"""One record as it stands in its file."""

JSONL_ENDINGS = (".jsonl", ".ndjson")
JSON_ENDINGS = (".json",)
PARQUET_ENDINGS = (".parquet",)
ENDINGS = JSONL_ENDINGS + JSON_ENDINGS + PARQUET_ENDINGS


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows with the place each of them came from; never empty."""

    source: str
    rows: Sequence[Row]
    lines: Sequence[int]

    def where(self, index: int) -> str:
        """The place of a row, for messages."""
        return f"{self.source}, line {self.lines[index]}"

    @property
    def names(self) -> tuple[str, ...]:
        """Every column that occurs, in order of appearance."""
        return tuple(dict.fromkeys(name for row in self.rows for name in row))

    def find(self, candidates: Sequence[str]) -> str | None:
        """The first of these columns that the table has."""
        return next((name for name in candidates if name in self.names), None)

    def require(self, name: str) -> str:
        """This column's name; raises UserError with the columns there are when the table lacks it."""
        if name not in self.names:
            raise UserError(
                f"{self.source} has no column {name!r}{_did_you_mean(name, self.names)} "
                f"(it has: {', '.join(self.names)})"
            )
        return name


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Which of the file's columns plays which part; what is left out is found by its usual names."""

    problem: str | None = None
    answer: str | None = None
    solution: str | None = None
    id: str | None = None
    messages: str | None = None

    def given(self) -> Iterator[tuple[str, str]]:
        """(part, column) for every part that the user named."""
        for part in fields(self):
            column: str | None = self.__dict__[part.name]
            if column is not None:
                yield part.name, column


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where rows come from, and how many of them: `path` (JSONL, JSON or Parquet) or `hub` (a data
    set id).

    A relative path is relative to the working directory; `split`, `subset` and `revision` concern
    the hub only; `limit` keeps the first rows.
    """

    path: str | None = None
    hub: str | None = None
    subset: str | None = None
    split: str = "train"
    revision: str | None = None
    columns: Columns = field(default_factory=Columns)
    limit: AtLeastOne | None = None

    def table(self) -> Table:
        """Read the rows; raises UserError where there are none to read."""
        if self.path is not None and self.hub is not None:
            raise UserError(
                f"both a path ({self.path}) and a hub id ({self.hub}) are given; leave one out"
            )
        if self.path is not None:
            table = read_file(Path(self.path))
        elif self.hub is not None:
            table = read_hub(self.hub, subset=self.subset, split=self.split, revision=self.revision)
        else:
            raise UserError("neither a path nor a hub id says where the data are")
        if self.limit is None:
            return table
        return Table(
            source=table.source, rows=table.rows[: self.limit], lines=table.lines[: self.limit]
        )


def read_file(path: Path) -> Table:
    """The rows of a JSONL or Parquet file; raises UserError that names the file and, where it can,
    the line.
    """
    if path.is_dir():
        inside = (
            ", ".join(sorted(file.name for file in path.iterdir() if file.suffix in ENDINGS))
            or "none"
        )
        raise UserError(
            f"{path} is a folder; expected a .jsonl, .json or .parquet file (data files in "
            f"it: {inside})"
        )
    if not path.exists():
        beside = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
        raise UserError(
            f"{path} does not exist{_did_you_mean(path.name, beside)} (looked in "
            f"{path.parent.resolve()})"
        )
    if path.suffix in JSONL_ENDINGS:
        return _filled(read_jsonl(path))
    if path.suffix in JSON_ENDINGS:
        return _filled(read_json(path))
    if path.suffix in PARQUET_ENDINGS:
        return _filled(read_parquet(path))
    raise UserError(
        f"{path} ends in {path.suffix or 'nothing'!r}; expected .jsonl, .json or .parquet"
    )


def read_json(path: Path) -> Table:
    """The objects of a JSON list, strict UTF-8; a row's "line" counts from 1."""
    try:
        rows = json.loads(path.read_bytes().decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UserError(
            f"{path} holds no list of JSON objects; with one object per line, call it .jsonl"
        )
    return Table(source=str(path), rows=rows, lines=range(1, len(rows) + 1))


def read_jsonl(path: Path) -> Table:
    """One JSON object per line, strict UTF-8; blank lines are passed over."""
    rows, lines = [], []
    for number, raw in enumerate(path.read_bytes().split(b"\n"), start=1):
        if raw.strip():
            rows.append(json_object(raw, f"{path}, line {number}"))
            lines.append(number)
    return Table(source=str(path), rows=rows, lines=lines)


def read_parquet(path: Path) -> Table:
    """The rows of a Parquet file; a row's "line" counts from 1."""
    from pyarrow import ArrowException
    from pyarrow.parquet import read_table

    try:
        rows = read_table(path).to_pylist()
    except (ArrowException, OSError) as error:
        raise UserError(f"{path} cannot be read as Parquet: {error}") from error
    return Table(source=str(path), rows=rows, lines=range(1, len(rows) + 1))


def read_hub(hub: str, *, subset: str | None, split: str, revision: str | None) -> Table:
    """The rows of a data set of the Hugging Face hub (or of its local cache)."""
    from datasets import load_dataset

    try:
        rows = list(_encoded(load_dataset(hub, subset, split=split, revision=revision)))
    except (
        OSError,
        ValueError,
    ) as error:  # datasets and huggingface_hub raise kinds of these two for what a user can mend
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"hub data set {hub!r} (subset {subset}, split {split}) cannot be read: {reason}"
        ) from error
    return _filled(
        Table(source=f"hub data set {hub} ({split})", rows=rows, lines=range(1, len(rows) + 1))
    )


def _encoded(data: Dataset) -> Dataset:
    """The same with its images as the bytes that they came in."""
    from datasets import Image

    for name, feature in data.features.items():
        if isinstance(feature, Image):
            data = data.cast_column(name, Image(decode=False))
    return data


def text(value: object, *, column: str, where: str) -> str:
    """A cell as text: strings as they are, numbers as written; raises UserError for anything else."""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    found = "nothing" if value is None else f"{type(value).__name__} {str(value)[:60]!r}"
    raise UserError(f"{where}: column {column!r} holds {found}; expected text or a number")


def _filled(table: Table) -> Table:
    if not table.rows:
        raise UserError(f"{table.source} is empty; expected at least one row")
    return table


def json_object(raw: bytes, where: str) -> Row:
    """One line as a record; raises UserError that says what it is instead."""
    try:
        value = json.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise UserError(
            f"{where}: byte {error.start + 1} is not UTF-8 (0x{raw[error.start]:02x}); "
            f"save the file as UTF-8"
        ) from error
    except RecursionError as error:
        raise UserError(f"{where}: nested too deeply; expected one JSON object per line") from error
    except ValueError as error:
        raise UserError(
            f"{where}: expected one JSON object per line, but {error}; the line starts "
            f"{_start(raw)}"
        ) from error
    if not isinstance(value, dict):
        raise UserError(
            f"{where}: expected a JSON object, found {type(value).__name__}; the line "
            f"starts {_start(raw)}"
        )
    return value


def _start(raw: bytes) -> str:
    return repr(raw[:60].decode("utf-8", errors="replace"))


def _did_you_mean(name: str, names: Sequence[str]) -> str:
    close = get_close_matches(name, names, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
