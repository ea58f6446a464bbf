"""Files and hub data sets -> tables of rows, with errors that name the file, line and column."""

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
"""One record of a file."""

JSONL_ENDINGS = (".jsonl", ".ndjson")
JSON_ENDINGS = (".json",)
PARQUET_ENDINGS = (".parquet",)
ENDINGS = JSONL_ENDINGS + JSON_ENDINGS + PARQUET_ENDINGS


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of a file or data set with their line numbers; never empty."""

    source: str
    rows: Sequence[Row]
    lines: Sequence[int]

    def where(self, index: int) -> str:
        """The file and line of a row, for error messages."""
        return f"{self.source}, line {self.lines[index]}"

    @property
    def names(self) -> tuple[str, ...]:
        """All columns that occur, in order of appearance."""
        return tuple(dict.fromkeys(name for row in self.rows for name in row))

    def find(self, candidates: Sequence[str]) -> str | None:
        """The first of the candidates that is a column, or None."""
        return next((name for name in candidates if name in self.names), None)

    def require(self, name: str) -> str:
        """Return the name of a column; raise UserError with the existing ones if it is missing."""
        if name not in self.names:
            raise UserError(
                f"{self.source} has no column {name!r}{_did_you_mean(name, self.names)} "
                f"(it has: {', '.join(self.names)})"
            )
        return name


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Names of the columns for each part; None looks for the usual names."""

    problem: str | None = None
    answer: str | None = None
    solution: str | None = None
    id: str | None = None
    messages: str | None = None

    def named(self) -> Iterator[tuple[str, str]]:
        """(part, column) for each part whose column is set."""
        for part in fields(self):
            column: str | None = self.__dict__[part.name]
            if column is not None:
                yield part.name, column


@dataclass(frozen=True, kw_only=True)
class Source:
    """A file or hub data set, and the number of rows to read.

    Attributes:
        path: a JSONL, JSON or Parquet file, relative to the working directory.
        hub: id of a data set on the Hugging Face hub, instead of `path`.
        subset: configuration of the hub data set.
        split: split of the hub data set.
        revision: commit, branch or tag of the hub data set.
        columns: names of columns that differ from the usual ones.
        limit: read only this many rows, from the start.
    """

    path: str | None = None
    hub: str | None = None
    subset: str | None = None
    split: str = "train"
    revision: str | None = None
    columns: Columns = field(default_factory=Columns)
    limit: AtLeastOne | None = None

    def table(self) -> Table:
        """Read the rows; raises UserError if the source is incomplete, unreadable or empty."""
        if self.path is not None and self.hub is not None:
            raise UserError(
                f"both a path ({self.path}) and a hub id ({self.hub}) are set; leave one out"
            )
        if self.path is not None:
            table = read_file(Path(self.path))
        elif self.hub is not None:
            table = read_hub(self.hub, subset=self.subset, split=self.split, revision=self.revision)
        else:
            raise UserError("neither `path` nor `hub` is set; name the file or data set to read")
        if self.limit is None:
            return table
        return Table(
            source=table.source, rows=table.rows[: self.limit], lines=table.lines[: self.limit]
        )


def read_file(path: Path) -> Table:
    """The rows of a JSONL, JSON or Parquet file.

    Raises UserError that names the file and, if possible, the line.
    """
    if path.is_dir():
        inside = (
            ", ".join(sorted(file.name for file in path.iterdir() if file.suffix in ENDINGS))
            or "none"
        )
        raise UserError(
            f"{path} is a folder; expected a .jsonl, .json or .parquet file (data files in it: "
            f"{inside})"
        )
    if not path.exists():
        siblings = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
        raise UserError(
            f"{path} does not exist{_did_you_mean(path.name, siblings)} (looked in "
            f"{path.parent.resolve()})"
        )
    if path.suffix in JSONL_ENDINGS:
        return _non_empty(read_jsonl(path))
    if path.suffix in JSON_ENDINGS:
        return _non_empty(read_json(path))
    if path.suffix in PARQUET_ENDINGS:
        return _non_empty(read_parquet(path))
    raise UserError(f"{path} has the suffix {path.suffix!r}; expected .jsonl, .json or .parquet")


def read_json(path: Path) -> Table:
    """The objects of a JSON list in strict UTF-8; "lines" number the rows from 1."""
    try:
        rows = json.loads(path.read_bytes().decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UserError(
            f"{path} is not a list of JSON objects; if it has one object per line, rename it to "
            f".jsonl"
        )
    return Table(source=str(path), rows=rows, lines=range(1, len(rows) + 1))


def read_jsonl(path: Path) -> Table:
    """One JSON object per line in strict UTF-8; blank lines are skipped."""
    rows: list[Row] = []
    lines: list[int] = []
    # Not splitlines: JSON strings may hold U+2028 or U+0085, which Python takes for line ends.
    for number, raw in enumerate(path.read_bytes().split(b"\n"), start=1):
        if raw.strip():
            rows.append(json_object(raw, f"{path}, line {number}"))
            lines.append(number)
    return Table(source=str(path), rows=rows, lines=lines)


def read_parquet(path: Path) -> Table:
    """The rows of a Parquet file; "lines" number the rows from 1."""
    from pyarrow import ArrowException
    from pyarrow.parquet import read_table

    try:
        rows = read_table(path).to_pylist()
    except (ArrowException, OSError) as error:
        raise UserError(f"{path} cannot be read as Parquet: {error}") from error
    return Table(source=str(path), rows=rows, lines=range(1, len(rows) + 1))


def read_hub(hub: str, *, subset: str | None, split: str, revision: str | None) -> Table:
    """The rows of a data set on the Hugging Face hub, or in its local cache.

    Args:
        hub: id of the data set.
        subset: configuration of the data set; None for the default.
        split: split to read.
        revision: commit, branch or tag; None for the newest.

    Returns:
        The rows, numbered from 1.

    Raises:
        UserError: the data set cannot be read or is empty.
    """
    from datasets import load_dataset

    try:
        rows = list(_undecoded(load_dataset(hub, subset, split=split, revision=revision)))
    # datasets and huggingface_hub derive their errors for user mistakes from these two.
    except (OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"hub data set {hub!r} (subset {subset}, split {split}) cannot be read: {reason}"
        ) from error
    return _non_empty(
        Table(source=f"hub data set {hub} ({split})", rows=rows, lines=range(1, len(rows) + 1))
    )


def _undecoded(data: Dataset) -> Dataset:
    """The same data set with images as encoded bytes."""
    from datasets import Image

    # Decoding would need Pillow, and pixels are much larger than their file.
    for name, feature in data.features.items():
        if isinstance(feature, Image):
            data = data.cast_column(name, Image(decode=False))
    return data


def text(value: object, *, column: str, where: str) -> str:
    """A cell that holds text or a number, as text; raises UserError for anything else."""
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    content = "nothing" if value is None else f"{type(value).__name__} {str(value)[:60]!r}"
    raise UserError(f"{where}: column {column!r} holds {content}; expected text or a number")


def _non_empty(table: Table) -> Table:
    if not table.rows:
        raise UserError(f"{table.source} is empty; expected at least one row")
    return table


def json_object(raw: bytes, where: str) -> Row:
    """Parse one line as a JSON object; raises UserError that names the line and the reason."""
    try:
        value = json.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise UserError(
            f"{where}: byte {error.start + 1} (0x{raw[error.start]:02x}) is not UTF-8; "
            f"save the file as UTF-8"
        ) from error
    except RecursionError as error:
        raise UserError(f"{where}: nested too deeply; expected one JSON object per line") from error
    except ValueError as error:
        raise UserError(
            f"{where}: expected one JSON object per line ({error}); the line starts {_start(raw)}"
        ) from error
    if not isinstance(value, dict):
        raise UserError(
            f"{where}: expected a JSON object, found {type(value).__name__}; the line starts "
            f"{_start(raw)}"
        )
    return value


def _start(raw: bytes) -> str:
    return repr(raw[:60].decode("utf-8", errors="replace"))


def _did_you_mean(name: str, names: Sequence[str]) -> str:
    close = get_close_matches(name, names, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
