"""Evidence that is computed once and stored: one number per response token, in Parquet.

Format: a file holds one kind of evidence, with one row per response: `sample_id`, `ids_hash` and
the numbers in float32, one per response token. The hash covers the ids that the model was fed: the
prompt (or a header in its place) and the response. The file's metadata `made_by` holds everything
else that the numbers depend on: fingerprints of models, and settings. A store is such a file or a
directory of parts, each written atomically.

Reading: numbers are looked up by sample id and hash, so that they can never be applied to another
response. Missing, misaligned, stale or non-finite numbers are errors that name the sample and the
remedy.
"""

from __future__ import annotations

import hashlib
import json
import math
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyarrow import Table

from reasontrain.algo.evidence import EVIDENCE
from reasontrain.types import Rollout, RunError, UserError, listed

SAMPLE = "sample_id"
HASH = "ids_hash"
MADE_BY = "made_by"
Key = tuple[str, str]
"""A sample's id, and the hash of the token ids that its numbers belong to."""
MadeBy = Mapping[str, object]
"""Everything that the numbers depend on besides the ids, as JSON values."""


def hash_of(ids: Sequence[int]) -> str:
    """SHA-256 of token ids, in hexadecimal."""
    return hashlib.sha256(array("q", ids).tobytes()).hexdigest()


def key_of(rollout: Rollout) -> Key:
    """The key of a response's numbers in a store."""
    # The prompt's length is hashed too: the same ids split elsewhere are another response.
    return rollout.problem.id, hash_of(
        [len(rollout.prompt_ids), *rollout.prompt_ids, *rollout.response_ids]
    )


def digest(rollouts: Iterable[Rollout]) -> str:
    """A hash of a set of responses that does not depend on their order."""
    return hashlib.sha256(
        "\n".join(sorted(" ".join(key_of(r)) for r in rollouts)).encode()
    ).hexdigest()


def directory_of(root: Path, name: str, made_by: MadeBy) -> Path:
    """The directory of parts for evidence `name` made by `made_by`."""
    return root / f"{name}-{hashlib.sha256(_text(made_by).encode()).hexdigest()[:16]}"


def part_of(directory: Path, number: int) -> Path:
    """The path of one part in a directory."""
    return directory / f"part-{number:05d}.parquet"


def write(
    path: Path,
    name: str,
    rollouts: Sequence[Rollout],
    values: Sequence[Sequence[float]],
    made_by: MadeBy,
) -> None:
    """Write one file of evidence atomically.

    Args:
        path: the Parquet file.
        name: kind of evidence, one of `EVIDENCE`.
        rollouts: the responses.
        values: for each response one finite number per response token.
        made_by: everything that the numbers depend on besides the ids.

    Raises:
        RunError: a response has a wrong number of values, or one that is not finite.
    """
    import pyarrow

    assert name in EVIDENCE, f"{name} is not in the evidence table"
    for rollout, numbers in zip(rollouts, values, strict=True):
        if (error := _error_in(rollout, numbers)) is not None:
            raise RunError(
                f"column {name!r} of sample {rollout.problem.id!r} was computed wrongly: it {error}"
            )
    keys = [key_of(rollout) for rollout in rollouts]
    columns = {
        SAMPLE: pyarrow.array([sample for sample, _ in keys]),
        HASH: pyarrow.array([ids_hash for _, ids_hash in keys]),
        name: pyarrow.array(
            [list(numbers) for numbers in values], type=pyarrow.list_(pyarrow.float32())
        ),
    }
    write_table(path, pyarrow.table(columns), made_by)


def write_table(path: Path, table: Table, made_by: MadeBy) -> None:
    """Write a table with its `made_by` atomically: a killed run leaves a complete part or none."""
    from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    parquet.write_table(table.replace_schema_metadata({MADE_BY: _text(made_by)}), partial)
    partial.replace(path)


@dataclass(frozen=True)
class StoredColumn:
    """One kind of evidence as it was read from a store."""

    name: str
    path: Path
    values: Mapping[Key, Sequence[float | None]]

    def of(self, rollout: Rollout) -> tuple[float, ...]:
        """The numbers of this response.

        Raises UserError that names the sample if they are missing, belong to another response, have
        the wrong length or are not finite.
        """
        key = key_of(rollout)
        if key not in self.values:
            known = any(sample == key[0] for sample, _ in self.values)
            raise self._error(
                rollout,
                "belongs to another response: these token ids were not scored"
                if known
                else "is missing",
            )
        if (error := _error_in(rollout, self.values[key])) is not None:
            raise self._error(rollout, error)
        return tuple(value for value in self.values[key] if value is not None)

    def joined(self, rollouts: Sequence[Rollout], *, optional: int = 0) -> tuple[Rollout, ...]:
        """The rollouts with their numbers as evidence; the first `optional` may have none."""
        return tuple(
            replace(r, evidence={**r.evidence, self.name: self.of(r)})
            if i >= optional or key_of(r) in self.values
            else r
            for i, r in enumerate(rollouts)
        )

    def _error(self, rollout: Rollout, reason: str) -> UserError:
        return UserError(
            f"the stored column {self.name!r} of sample {rollout.problem.id!r} {reason}; "
            f"{_remedy(self.path)}"
        )


def read(path: Path, name: str, made_by: MadeBy | None = None) -> StoredColumn:
    """Read evidence `name` from a file or a directory of parts.

    Raises UserError if a file is unreadable, holds other evidence, or is stale: its metadata differ
    from `made_by`, or from the first part's if `made_by` is None.
    """
    values: dict[Key, Sequence[float | None]] = {}
    for table in read_tables(path, name, (SAMPLE, HASH, name), made_by):
        cells = zip(*(table[column].to_pylist() for column in (SAMPLE, HASH, name)), strict=True)
        values |= {(sample, ids_hash): numbers or [] for sample, ids_hash, numbers in cells}
    return StoredColumn(name, path, values)


def parts_of(path: Path) -> list[Path]:
    """The files of a store, in order."""
    return sorted(path.glob("part-*.parquet")) if path.is_dir() else [path]


def read_tables(
    path: Path, name: str, columns: Sequence[str], made_by: MadeBy | None
) -> Iterator[Table]:
    """The tables of a store, one for each file.

    Args:
        path: a file, or a directory of parts.
        name: what the store holds, for messages.
        columns: the columns that each file must have.
        made_by: what the metadata of each file must be; None: those of the first file.

    Raises:
        UserError: a file is unreadable, lacks a column, or is stale.
    """
    expected: dict[str, object] | None = None if made_by is None else json.loads(_text(made_by))
    for file in parts_of(path):
        table, file_made_by = _table(path, file, name, columns)
        expected = file_made_by if expected is None else expected
        if other := sorted(
            key for key in {*expected, *file_made_by} if expected.get(key) != file_made_by.get(key)
        ):
            raise UserError(
                f"{file} is stale: it was made with another model, other data or other settings "
                f"than this run has (different: {', '.join(other)}); {_remedy(path)}"
            )
        yield table


def _table(
    path: Path, file: Path, name: str, columns: Sequence[str]
) -> tuple[Table, dict[str, object]]:
    """One file of a store, and its `made_by`."""
    from pyarrow import ArrowException
    from pyarrow.parquet import read_table

    try:
        table = read_table(file)
        metadata = {
            key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()
        }
        made_by: dict[str, object] = json.loads(metadata.get(MADE_BY, "{}"))
    except (ArrowException, OSError, ValueError) as error:
        raise UserError(
            f"column {name!r}: {file} cannot be read as Parquet ({error}); {_remedy(path)}"
        ) from error
    if missing := {*columns, MADE_BY} - {*table.column_names, *metadata}:
        has = listed(table.column_names)
        raise UserError(
            f"column {name!r}: {file} has no {', '.join(sorted(missing))} (it has: {has}); "
            f"{_remedy(path)}"
        )
    return table, made_by


def _text(made_by: MadeBy) -> str:
    return json.dumps(made_by, sort_keys=True, indent=1)


def _remedy(path: Path) -> str:
    return f"remove {path} and run `reasontrain score RECIPE`"


def _error_in(rollout: Rollout, values: Sequence[float | None]) -> str | None:
    """A description of the error in a response's numbers, or None."""
    if len(values) != len(rollout.response_ids):
        return f"has {len(values)} numbers for {len(rollout.response_ids)} response tokens"
    for index, value in enumerate(values):
        if value is None or not math.isfinite(value):
            return f"holds {value} at response token {index}; expected a finite number"
    return None
