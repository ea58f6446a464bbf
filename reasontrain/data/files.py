"""Files and hub data sets -> tables of rows, with errors that name the file, line and column."""

from __future__ import annotations

import codecs
import csv
import glob
import gzip
import io
import json
import logging
import math
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

from reasontrain.data.hub import hub_or_cache
from reasontrain.data.progress import with_progress
from reasontrain.types import AtLeastOne, UserError, did_you_mean, listed

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)
T = TypeVar("T")

Row = Mapping[str, object]
"""One record of a file."""

JSONL_ENDINGS = (".jsonl", ".ndjson")
JSON_ENDINGS = (".json",)
CSV_ENDINGS = (".csv", ".tsv")
PARQUET_ENDINGS = (".parquet",)
ENDINGS = JSONL_ENDINGS + JSON_ENDINGS + CSV_ENDINGS + PARQUET_ENDINGS
GZIP = ".gz"
EXPECTED = f"{', '.join(ENDINGS)}, or one of the text formats with {GZIP}"
WRAPPERS = ("data", "rows", "examples")
"""Keys under which a JSON object may hold its list of rows."""
PATTERN = re.compile(r"[*?\[]")
LONE_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
PLAIN_DIGITS = 30
"""Numbers of more digits than this, before or after the point, are written with an exponent."""

BadRows = Literal["refuse", "drop"]


class RowError(UserError):
    """An error of one row, which `bad_rows: drop` leaves out; the message names file and line."""


def refuse(error: RowError) -> None:
    """Raise the error: the default for rows that cannot be used."""
    raise error


OnBadRow = Callable[[RowError], None]


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of a file or data set with their line numbers.

    Attributes:
        source: the file or data set.
        rows: the records.
        lines: number of each record in the source.
        unit: unit of `lines`; formats without lines number their rows.
        files: for several files read together, each with its number of rows.
    """

    source: str
    rows: Sequence[Row]
    lines: Sequence[int]
    unit: Literal["line", "row"] = "line"
    files: Sequence[tuple[str, int]] = ()

    def where(self, index: int) -> str:
        """The file and line of a row, for error messages."""
        source = self.source
        start = 0
        for file, num_rows in self.files:
            if index < start + num_rows:
                source = file
                break
            start += num_rows
        return f"{source}, {self.unit} {self.lines[index]}"

    @cached_property
    def names(self) -> tuple[str, ...]:
        """All columns that occur, in order of appearance."""
        return tuple(dict.fromkeys(name for row in self.rows for name in row))

    @cached_property
    def nested_names(self) -> tuple[str, ...]:
        """All columns, those that hold objects by the dotted names of their cells."""
        nested = {name: dict[str, None]() for name in self.names}
        for row in self.rows:
            for name, value in row.items():
                if isinstance(value, dict):
                    nested[name].update(dict.fromkeys(f"{name}.{key}" for key in value))
        return tuple(cell for name, cells in nested.items() for cell in cells or (name,))

    def has(self, name: str) -> bool:
        """Return True if any row has the column, or the cell of a dotted name."""
        return name in self.names or (
            "." in name
            and name.partition(".")[0] in self.names
            and any(cell(row, name) is not None for row in self.rows)
        )

    def find(self, candidates: Sequence[str]) -> str | None:
        """The first of the candidates that is a column, or None."""
        return next((name for name in candidates if self.has(name)), None)

    def require(self, name: str) -> str:
        """Return the name of a column; raise UserError with the existing ones if it is missing."""
        # A cell that is empty in every row has a name; that it is empty is said of its row.
        if not self.has(name) and name not in self.nested_names:
            names = self.nested_names
            raise UserError(
                f"{self.source} has no column {name!r}{did_you_mean(name, names)} "
                f"(it has: {listed(names)})"
            )
        return name


def cell(row: Row, name: str) -> object:
    """The value of a column, or of a nested cell such as `reward_model.ground_truth`.

    A number in a dotted name is a position in a list. None if the row has no such cell.
    """
    if name in row:
        return row[name]
    value: object = row
    for part in name.split("."):
        if isinstance(value, Mapping):
            value = value.get(part)
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            return None
    return value


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Names of the columns for each part; None looks for the usual names.

    A dotted name, such as `reward_model.ground_truth`, is a cell of a nested object.
    """

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
        path: a JSONL, JSON, CSV, TSV or Parquet file, relative to the working directory, or a
            pattern of several such as `data/*.parquet`, read in the order of their names.
        hub: id of a data set on the Hugging Face hub, instead of `path`.
        subset: configuration of the hub data set.
        split: split of the hub data set.
        revision: commit, branch or tag of the hub data set.
        columns: names of columns that differ from the usual ones.
        limit: read only this many rows, from the start.
        bad_rows: "refuse" makes a row that cannot be used an error, "drop" drops and counts it.
    """

    path: str | None = None
    hub: str | None = None
    subset: str | None = None
    split: str = "train"
    revision: str | None = None
    columns: Columns = field(default_factory=Columns)
    limit: AtLeastOne | None = None
    bad_rows: BadRows = "refuse"

    def table(self, on_bad_row: OnBadRow = refuse) -> Table:
        """Read the rows.

        `on_bad_row` is called with the error of each line that is no row. Raises UserError if the
        source is incomplete, unreadable or empty.
        """
        return read_source(
            path=self.path,
            hub=self.hub,
            subset=self.subset,
            split=self.split,
            revision=self.revision,
            limit=self.limit,
            on_bad_row=on_bad_row,
        )


def read_source(
    *,
    path: str | None,
    hub: str | None,
    subset: str | None,
    split: str,
    revision: str | None,
    limit: int | None,
    on_bad_row: OnBadRow = refuse,
) -> Table:
    """Read the rows of a file or hub data set (see `Source`).

    Args:
        path: the file or pattern.
        hub: the data set, instead of `path`.
        subset: configuration of the data set.
        split: split of the data set.
        revision: commit, branch or tag of the data set.
        limit: the most rows to return.
        on_bad_row: called with the error of each line that is no row.

    Returns:
        The rows; at least one.

    Raises:
        UserError: the source is incomplete, unreadable or empty.
    """
    if path is not None and hub is not None:
        raise UserError(f"both a path ({path}) and a hub id ({hub}) are set; leave one out")
    if path is not None:
        table = read_files(path, on_bad_row)
    elif hub is not None:
        table = read_hub(hub, subset=subset, split=split, revision=revision)
    else:
        raise UserError("neither `path` nor `hub` is set; name the file or data set to read")
    if limit is None:
        return table
    return replace(table, rows=table.rows[:limit], lines=table.lines[:limit])


def files_of(path: str) -> list[Path]:
    """The files that a path names: itself, or those that match its pattern, sorted by name."""
    if not PATTERN.search(path) or Path(path).exists():
        return [Path(path)]
    files = [Path(name) for name in sorted(glob.glob(path, recursive=True))]
    files = [file for file in files if file.is_file()]
    if not files:
        raise UserError(f"no file matches {path} (looked from {Path().resolve()})")
    return files


def read_files(path: str, on_bad_row: OnBadRow = refuse) -> Table:
    """The rows of a file, or of all files that match a pattern, in the order of their names."""
    tables = [read_file(file, on_bad_row) for file in files_of(path)]
    if len(tables) == 1:
        return tables[0]
    units = {table.unit for table in tables}
    if len(units) > 1:
        raise UserError(
            f"{path} matches files of different formats ({tables[0].source}, "
            f"{next(t.source for t in tables if t.unit != tables[0].unit)}); name files of one "
            f"format, as in `*.jsonl`"
        )
    return Table(
        source=path,
        rows=[row for table in tables for row in table.rows],
        lines=[line for table in tables for line in table.lines],
        unit=tables[0].unit,
        files=[(table.source, len(table.rows)) for table in tables],
    )


def ending(path: Path) -> str:
    """The ending of a file's name that states its format, in lower case, without `.gz`."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes[-1:] == [GZIP]:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def is_data_file(path: Path) -> bool:
    """Return True if the name of the file has the ending of a supported format."""
    return ending(path) in ENDINGS


def read_file(path: Path, on_bad_row: OnBadRow = refuse) -> Table:
    """The rows of a JSONL, JSON, CSV, TSV or Parquet file.

    `on_bad_row` is called with the error of each line that is no row. Raises UserError that names
    the file and, if possible, the line.
    """
    if path.is_dir():
        names = sorted(file.name for file in path.iterdir() if is_data_file(file))
        pattern = path / f"*{ending(Path(names[0])) if names else '.jsonl'}"
        raise UserError(
            f"{path} is a folder; name one of its files or a pattern, as in {pattern} (data files "
            f"in it: {listed(names)})"
        )
    if not path.exists():
        siblings = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
        raise UserError(
            f"{path} does not exist{did_you_mean(path.name, siblings)} (looked in "
            f"{path.parent.resolve()})"
        )
    form = ending(path)
    if form in JSONL_ENDINGS:
        return _non_empty(read_jsonl(path, on_bad_row))
    if form in JSON_ENDINGS:
        return _non_empty(read_json(path, on_bad_row))
    if form in CSV_ENDINGS:
        return _non_empty(read_csv(path, on_bad_row))
    if form in PARQUET_ENDINGS and path.suffix.lower() != GZIP:
        return _non_empty(read_parquet(path))
    raise UserError(f"{path} has the suffix {path.suffix!r}; expected {EXPECTED}")


def _content(path: Path) -> bytes:
    """The bytes of a file, unpacked, as UTF-8 without a byte-order mark."""
    try:
        content = path.read_bytes()
        if path.suffix.lower() == GZIP:
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    # The mark of UTF-32 begins with that of UTF-16.
    for mark, encoding in (
        (codecs.BOM_UTF32_LE, "utf-32"),
        (codecs.BOM_UTF32_BE, "utf-32"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):
        if content.startswith(mark):
            try:
                return content.decode(encoding).encode("utf-8")
            except UnicodeError as error:
                raise UserError(
                    f"{path} begins with the mark of {encoding.upper()} and is not valid in it "
                    f"({error}); save the file as UTF-8"
                ) from error
    return content.removeprefix(codecs.BOM_UTF8)


def read_json(path: Path, on_bad_row: OnBadRow = refuse) -> Table:
    """The objects of a JSON list, numbered from 1.

    The list may be the value of `data`, `rows` or `examples` in an object; any other object is one
    row. A file with one object per line is read as JSONL.
    """
    content = _content(path)
    try:
        value = _parse(content)
    except UnicodeDecodeError as error:
        raise UserError(_not_utf8(content, error, f"{path}, line {_line(content, error)}")) from (
            error
        )
    except (ValueError, RecursionError) as error:
        extra = isinstance(error, json.JSONDecodeError) and error.msg == "Extra data"
        if extra and content.lstrip()[:1] == b"{":
            return read_jsonl(path, on_bad_row)
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise UserError(f"{path} cannot be read as JSON: {reason}") from error
    if isinstance(value, dict):
        wrapped = next((value[key] for key in WRAPPERS if _are_objects(value.get(key))), None)
        value = [value] if wrapped is None else wrapped
    if not isinstance(value, list):
        raise UserError(
            f"{path} holds one {_kind_of(value)}; expected a list of objects, or one object per "
            f"line in a .jsonl file"
        )
    rows: list[Row] = []
    lines: list[int] = []
    for number, row in enumerate(value, start=1):
        if isinstance(row, dict):
            rows.append(row)
            lines.append(number)
        else:
            on_bad_row(RowError(f"{path}, row {number}: expected an object, found {_kind_of(row)}"))
    return Table(source=str(path), rows=rows, lines=lines, unit="row")


def _are_objects(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def read_jsonl(path: Path, on_bad_row: OnBadRow = refuse) -> Table:
    """One JSON object per line; blank lines are skipped."""
    rows: list[Row] = []
    lines: list[int] = []
    # Not splitlines: JSON strings may hold U+2028 or U+0085, which Python takes for line ends.
    for number, raw in enumerate(_content(path).split(b"\n"), start=1):
        if raw.strip():
            try:
                rows.append(json_object(raw, f"{path}, line {number}"))
                lines.append(number)
            except RowError as error:
                on_bad_row(error)
    return Table(source=str(path), rows=rows, lines=lines)


def read_csv(path: Path, on_bad_row: OnBadRow = refuse) -> Table:
    """The rows of a CSV or TSV file with a header; blank lines are skipped.

    The separator of a .csv file is the most frequent of comma, semicolon and tab in its header.
    An empty cell is None.
    """
    content = _content(path)
    try:
        decoded = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(_not_utf8(content, error, f"{path}, line {_line(content, error)}")) from (
            error
        )
    # Long answers exceed the limit of 128 KiB per cell that the module has by default.
    csv.field_size_limit(sys.maxsize)
    header_line = decoded.lstrip("\r\n").partition("\n")[0]
    separator = "\t" if ending(path) == ".tsv" else max(",;\t", key=header_line.count)
    reader = csv.reader(io.StringIO(decoded, newline=""), delimiter=separator, strict=True)
    header: list[str] = []
    rows: list[Row] = []
    lines: list[int] = []
    while True:
        number = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            raise UserError(f"{path}, line {number}: cannot be read as CSV: {error}") from error
        if not any(value.strip() for value in cells):
            continue
        if not header:
            header = [name.strip() for name in cells]
            twice = [name for name in header if header.count(name) > 1]
            if twice or not all(header):
                raise UserError(
                    f"{path}, line {number}: the header has "
                    f"{f'column {twice[0]!r} twice' if all(header) else 'a column without a name'}"
                )
        elif len(cells) != len(header):
            on_bad_row(
                RowError(
                    f"{path}, line {number}: {len(cells)} cells, where the header has "
                    f"{len(header)} columns ({listed(header)})"
                )
            )
        else:
            rows.append({name: value or None for name, value in zip(header, cells, strict=True)})
            lines.append(number)
    return Table(source=str(path), rows=rows, lines=lines)


def read_parquet(path: Path) -> Table:
    """The rows of a Parquet file, numbered from 1."""
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        # `read_table` would take a folder name such as `split=train` for a column.
        table = ParquetFile(path).read()
        names = table.column_names
        rows = table.to_pylist()
    # Values that Python cannot represent, such as dates before year 1, are ValueErrors.
    except (ArrowException, OSError, ValueError, OverflowError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(f"{path} cannot be read as Parquet: {reason}") from error
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UserError(f"{path} has column {twice[0]!r} twice")
    return Table(source=str(path), rows=rows, lines=range(1, len(rows) + 1), unit="row")


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

    # Without a network, libraries try again for half a minute.
    logger.info(f"reading the data set {hub} ({split}) from the Hugging Face hub or its cache")
    try:
        with hub_or_cache():
            rows = list(_undecoded(load_dataset(hub, subset, split=split, revision=revision)))
    # datasets and huggingface_hub derive their errors for user mistakes from these two.
    except (OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise UserError(
            f"hub data set {hub!r} (subset {subset}, split {split}) cannot be read: {reason}; a "
            "file needs no hub: `path` of a task, or --data (or $REASONTRAIN_DATA) for a suite"
        ) from error
    return _non_empty(
        Table(
            source=f"hub data set {hub} ({split})",
            rows=rows,
            lines=range(1, len(rows) + 1),
            unit="row",
        )
    )


def _undecoded(data: Dataset) -> Dataset:
    """The same data set with images as encoded bytes."""
    from datasets import Image

    # Decoding would need Pillow, and pixels are much larger than their file.
    for name, feature in data.features.items():
        if isinstance(feature, Image):
            data = data.cast_column(name, Image(decode=False))
    return data


MISSING_TEXTS = frozenset({"NaT", "<NA>", "inf", "-inf"})
"""Texts that other programs write for a missing or infinite number, beside `nan` in any case."""


def text(value: object, *, column: str, where: str) -> str:
    """A cell that holds text or a finite number, as text; raises RowError for anything else.

    A whole number is written without a point: a column of integers with a gap is of floats in
    pandas, and 5 and 5.0 are one number in JSON.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, float | Decimal) and math.isfinite(value):
        return _number_text(value)
    raise RowError(f"{where}: column {column!r} holds {shown(value)}; expected text or a number")


def _number_text(value: float | Decimal) -> str:
    exact = value if isinstance(value, Decimal) else Decimal(repr(value))
    if exact == 0:
        return "0"
    exact = exact.normalize()
    exponent = exact.as_tuple().exponent
    assert isinstance(exponent, int), "the number is finite"
    plain = exponent >= -PLAIN_DIGITS and exact.adjusted() <= PLAIN_DIGITS
    return format(exact, "f") if plain else str(value)


def present(value: object, *, column: str, where: str) -> str:
    """The text of a cell that must not be empty; raises RowError if it is, or holds no text."""
    content = text(value, column=column, where=where)
    if not content.strip():
        raise RowError(f"{where}: column {column!r} is empty")
    if is_missing(content):
        raise RowError(
            f"{where}: column {column!r} holds the text {content.strip()!r}, which stands for a "
            f"missing number"
        )
    return content


def is_missing(content: str) -> bool:
    """Return True for a text that other programs write for a missing or infinite number."""
    stripped = content.strip()
    return stripped in MISSING_TEXTS or stripped.lower() == "nan"


def shown(value: object) -> str:
    """A cell's value in an error message, with its type."""
    if value is None:
        return "nothing"
    if isinstance(value, float | Decimal) and not math.isfinite(value):
        return "NaN (a missing number)" if math.isnan(value) else "an infinite number"
    return f"{_kind_of(value)} {str(value)[:60]!r}"


def _kind_of(value: object) -> str:
    return "null" if value is None else type(value).__name__


def usable(
    table: Table,
    read: Callable[[int], T],
    bad_rows: BadRows,
    unreadable: Sequence[RowError] = (),
) -> list[T]:
    """Read every row that can be used.

    Args:
        table: the rows.
        read: reads the row of an index; raises RowError if it cannot be used.
        bad_rows: "refuse" raises the first such error, "drop" logs it with the number of rows.
        unreadable: errors of lines that are no rows.

    Returns:
        What `read` returned, in the order of the rows.

    Raises:
        UserError: a row cannot be used and is not dropped, or none can be used.
    """
    errors = list(unreadable)
    results: list[T] = []
    for index in with_progress(range(len(table.rows)), f"rows of {table.source} read"):
        try:
            results.append(read(index))
        except RowError as error:
            if bad_rows == "refuse":
                raise RowError(f"{error}; `task.bad_rows: drop` leaves such rows out") from error
            errors.append(error)
    report_dropped(table.source, errors, len(results))
    return results


def report_dropped(source: str, errors: Sequence[RowError], num_kept: int) -> None:
    """Log the number of dropped rows and the first reason; raise UserError if none is kept."""
    if not num_kept:
        raise UserError(f"no row of {source} can be used; the first: {errors[0]}")
    if errors:
        logger.warning(
            f"bad_rows: drop: {len(errors)} of {len(errors) + num_kept} rows of {source} cannot be "
            f"used and were dropped; the first: {errors[0]}"
        )


def _non_empty(table: Table) -> Table:
    if not table.rows:
        raise UserError(f"{table.source} is empty; expected at least one row")
    return table


def json_object(raw: bytes, where: str, *, allow_halves: bool = False) -> Row:
    """Parse one line as a JSON object; raises RowError that names the line and the reason.

    With `allow_halves`, texts may hold halves of characters, as the output of models does.
    """
    try:
        value = _parse(raw, allow_halves=allow_halves)
    except UnicodeDecodeError as error:
        raise RowError(_not_utf8(raw, error, where)) from error
    except RecursionError as error:
        raise RowError(f"{where}: nested too deeply; expected one JSON object per line") from error
    except ValueError as error:
        raise RowError(
            f"{where}: expected one JSON object per line ({error}); the line starts {_start(raw)}"
        ) from error
    if not isinstance(value, dict):
        raise RowError(
            f"{where}: expected a JSON object, found {type(value).__name__}; the line starts "
            f"{_start(raw)}"
        )
    return value


def _parse(raw: bytes, *, allow_halves: bool = False) -> object:
    """Strict JSON; raises ValueError for repeated keys and for halves of characters."""
    value = json.loads(raw.decode("utf-8"), object_pairs_hook=_object)
    if (
        not allow_halves and b"\\u" in raw and LONE_SURROGATE.search(raw)
    ):  # the search alone is five times as slow
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError as error:
            half = error.object[error.start : error.start + 1]
            raise ValueError(
                f"{half!a} is half of a character, and its other half is missing"
            ) from error
    return value


def _object(pairs: Iterable[tuple[str, object]]) -> dict[str, object]:
    pairs = list(pairs)
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"key {twice!r} occurs twice in one object")
    return value


def _not_utf8(raw: bytes, error: UnicodeDecodeError, where: str) -> str:
    start = raw.rfind(b"\n", 0, error.start) + 1
    return (
        f"{where}: byte {error.start - start + 1} (0x{raw[error.start]:02x}) is not UTF-8; "
        f"save the file as UTF-8"
    )


def _line(content: bytes, error: UnicodeDecodeError) -> int:
    return content.count(b"\n", 0, error.start) + 1


def _start(raw: bytes) -> str:
    return repr(raw[:60].decode("utf-8", errors="replace"))
