"""Evidence that is computed once and kept: one number per response token, in Parquet.

A store is a directory named by what made it. Each row holds a sample's id, a hash of its response's ids and its columns; each
file also says what made it. Reading compares all of that, so that a column can never meet a response it was not made for.
"""

from __future__ import annotations

import hashlib
import json
import math
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from reasontrain.types import EVIDENCE, RunError, UserError

ABOUT = "about.json"
_MADE_BY = b"made_by"
_ID, _HASH = "id", "ids_hash"


@dataclass(frozen=True)
class Sample:
    """A response by the id that its data know it by."""

    id: str
    ids: tuple[int, ...]

    @cached_property
    def ids_hash(self) -> str:
        """SHA-256 of the ids, as hexadecimal digits."""
        return hashlib.sha256(array("q", self.ids).tobytes()).hexdigest()


def digest(samples: Iterable[Sample]) -> str:
    """A hash of a whole set of samples, whatever their order."""
    return hashlib.sha256("\n".join(sorted(f"{s.id} {s.ids_hash}" for s in samples)).encode()).hexdigest()


class ColumnStore:
    """Columns of evidence of many samples, by sample id; written part by part, each part as a whole or not at all."""

    def __init__(self, root: Path, names: Sequence[str], made_by: Mapping[str, object]) -> None:
        """The store of these columns under `root`; `made_by` is all that changes their values, as JSON can write it."""
        assert set(names) <= EVIDENCE, f"not kinds of evidence: {names}"
        self.names, self.made_by = tuple(names), json.dumps({"columns": list(names), **made_by}, sort_keys=True, indent=1)
        self.fingerprint = hashlib.sha256(self.made_by.encode()).hexdigest()
        self.directory = root / f"{'-'.join(names)}-{self.fingerprint[:16]}"

    def has(self, part: int) -> bool:
        """Whether this part was written."""
        return self._file(part).exists()

    def write(self, part: int, samples: Sequence[Sample], columns: Mapping[str, Sequence[Sequence[float]]]) -> None:
        """Keep one part: for every column one sequence per sample, one finite number per token; RunError where one is not."""
        import pyarrow
        from pyarrow.parquet import write_table

        for name in self.names:
            for sample, values in zip(samples, columns[name], strict=True):
                if fault := _fault(sample, values):
                    raise RunError(f"column {name!r} of sample {sample.id!r} was computed wrongly: {fault}")
        fields = {_ID: pyarrow.array([s.id for s in samples]), _HASH: pyarrow.array([s.ids_hash for s in samples])}
        numbers = pyarrow.list_(pyarrow.float32())
        fields |= {name: pyarrow.array([list(values) for values in columns[name]], type=numbers) for name in self.names}
        written = pyarrow.table(fields).replace_schema_metadata({_MADE_BY: self.fingerprint.encode()})
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / ABOUT).write_text(self.made_by + "\n", encoding="utf-8")
        partial = self._file(part).with_suffix(".partial")
        write_table(written, partial)
        partial.replace(self._file(part))

    def read(self, samples: Sequence[Sample]) -> dict[str, dict[str, tuple[float, ...]]]:
        """The columns of these samples by id and name; UserError that names the sample and what is wrong with its column."""
        rows = {str(row[_ID]): row for file in sorted(self.directory.glob("part-*.parquet")) for row in self._rows(file)}
        return {sample.id: self._checked(sample, rows.get(sample.id)) for sample in samples}

    def _checked(self, sample: Sample, row: Mapping[str, object] | None) -> dict[str, tuple[float, ...]]:
        """One sample's columns."""
        if row is None:
            raise self._error(sample, self.names[0], "is missing")
        if row[_HASH] != sample.ids_hash:
            raise self._error(sample, self.names[0], "is of another response: the ids of this one are not those that were scored")
        found = {}
        for name in self.names:
            values = row.get(name)
            if not isinstance(values, list):
                raise self._error(sample, name, "is missing")
            if fault := _fault(sample, values):
                raise self._error(sample, name, fault)
            found[name] = tuple(values)
        return found

    def _rows(self, file: Path) -> list[Mapping[str, object]]:
        """The rows of one part, if this store's model and settings made it."""
        from pyarrow import ArrowException
        from pyarrow.parquet import read_table

        try:
            table = read_table(file)
        except (ArrowException, OSError) as error:
            raise UserError(f"{file} cannot be read as Parquet ({error}); {self._remedy}") from error
        made_by = (table.schema.metadata or {}).get(_MADE_BY, b"").decode()
        if made_by != self.fingerprint:
            ids = table[_ID].to_pylist() if _ID in table.column_names else []
            first = f"sample {ids[0]!r} and {len(ids) - 1} others" if ids else "no sample"
            raise UserError(
                f"{file} is stale ({first}): another model, other data or other settings made it (fingerprint "
                f"{made_by[:16] or 'none'}, expected {self.fingerprint[:16]}); {self._remedy}"
            )
        rows: list[Mapping[str, object]] = table.to_pylist()
        return rows

    @property
    def _remedy(self) -> str:
        return f"remove {self.directory} and run `reasontrain score RECIPE`"

    def _error(self, sample: Sample, name: str, fault: str) -> UserError:
        return UserError(f"the stored column {name!r} of sample {sample.id!r} {fault}; {self._remedy}")

    def _file(self, part: int) -> Path:
        return self.directory / f"part-{part:05d}.parquet"


def _fault(sample: Sample, values: Sequence[float]) -> str:
    """What is wrong with a column as a sample's; "" where nothing is."""
    if len(values) != len(sample.ids):
        return f"has {len(values)} numbers for {len(sample.ids)} response tokens"
    wrong = next((index for index, value in enumerate(values) if value is None or not math.isfinite(value)), None)
    return "" if wrong is None else f"holds {values[wrong]} at response token {wrong}, where a finite number was expected"
