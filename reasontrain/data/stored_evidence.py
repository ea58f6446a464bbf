"""Evidence that is computed once and kept: one number per response token, in Parquet.

One format. A file holds one column, and each of its rows is of one response: `sample_id`,
`ids_hash` and the numbers, in float32, one per response token. The hash is of the ids that a model
was fed: what comes before the response (a prompt, or a header in its place) and the response. What
made the numbers stands in the file's metadata as `made_by`: models by their fingerprints, and all
settings that change a number. A store is such a file, or a directory of parts, of which each is
written as a whole or not at all.

One reader. Numbers are found by the sample and the very ids that they are of, so that they can
never meet another response. What is missing, misaligned, stale or not finite is an error that names
the sample, where it is one sample's, and says what to do.
"""

from __future__ import annotations

import hashlib
import json
import math
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from reasontrain.algo.evidence import EVIDENCE
from reasontrain.types import Rollout, RunError, UserError

SAMPLE, HASH, MADE_BY = "sample_id", "ids_hash", "made_by"
Key = tuple[str, str]
"""A sample's id, and the hash of the ids that numbers are of."""
MadeBy = Mapping[str, object]
"""All that numbers are a function of beside the ids, as JSON can write it."""


def hash_of(ids: Sequence[int]) -> str:
    """SHA-256 of token ids, as hexadecimal digits."""
    return hashlib.sha256(array("q", ids).tobytes()).hexdigest()


def key_of(rollout: Rollout) -> Key:
    """What numbers of a response are found by."""
    return rollout.problem.id, hash_of(
        [len(rollout.prompt_ids), *rollout.prompt_ids, *rollout.response_ids]
    )


def digest(rollouts: Iterable[Rollout]) -> str:
    """A hash of a whole set of responses, whatever their order."""
    return hashlib.sha256(
        "\n".join(sorted(" ".join(key_of(r)) for r in rollouts)).encode()
    ).hexdigest()


def directory_of(root: Path, name: str, made_by: MadeBy) -> Path:
    """Where the parts of a column lie that this makes."""
    return root / f"{name}-{hashlib.sha256(_text(made_by).encode()).hexdigest()[:16]}"


def part_of(directory: Path, number: int) -> Path:
    """One part of a directory."""
    return directory / f"part-{number:05d}.parquet"


def write(
    path: Path,
    name: str,
    rollouts: Sequence[Rollout],
    values: Sequence[Sequence[float]],
    made_by: MadeBy,
) -> None:
    """Keep one sequence per response, one finite number per token; RunError where one is not."""
    import pyarrow
    from pyarrow.parquet import write_table

    assert name in EVIDENCE, f"{name} is not in the evidence table"
    for rollout, numbers in zip(rollouts, values, strict=True):
        if fault := _fault(rollout, numbers):
            raise RunError(
                f"column {name!r} of sample {rollout.problem.id!r} was computed wrongly: it {fault}"
            )
    keys = [key_of(rollout) for rollout in rollouts]
    columns = {
        SAMPLE: pyarrow.array([sample for sample, _ in keys]),
        HASH: pyarrow.array([ids_hash for _, ids_hash in keys]),
        name: pyarrow.array(
            [list(numbers) for numbers in values], type=pyarrow.list_(pyarrow.float32())
        ),
    }
    table = pyarrow.table(columns).replace_schema_metadata({MADE_BY: _text(made_by)})
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    write_table(table, partial)
    partial.replace(path)


@dataclass(frozen=True)
class StoredColumn:
    """What was read of a store."""

    name: str
    path: Path
    values: Mapping[Key, Sequence[float | None]]

    def of(self, rollout: Rollout) -> tuple[float, ...]:
        """The numbers of this response; UserError that names the sample and says what is wrong with
        its column.
        """
        key = key_of(rollout)
        if key not in self.values:
            known = any(sample == key[0] for sample, _ in self.values)
            raise self._error(
                rollout,
                "is of another response: these token ids were not scored"
                if known
                else "is missing",
            )
        if fault := _fault(rollout, self.values[key]):
            raise self._error(rollout, fault)
        return tuple(value for value in self.values[key] if value is not None)

    def joined(self, rollouts: Sequence[Rollout], *, optional: int = 0) -> tuple[Rollout, ...]:
        """The rollouts with their numbers; the first `optional` of them may have none."""
        return tuple(
            replace(r, evidence={**r.evidence, self.name: self.of(r)})
            if i >= optional or key_of(r) in self.values
            else r
            for i, r in enumerate(rollouts)
        )

    def _error(self, rollout: Rollout, fault: str) -> UserError:
        return UserError(
            f"the stored column {self.name!r} of sample {rollout.problem.id!r} {fault}; "
            f"{_remedy(self.path)}"
        )


def read(path: Path, name: str, made_by: MadeBy | None = None) -> StoredColumn:
    """A column from a file or a directory of parts; UserError where it is another one, or something
    other than `made_by` made it.

    Without `made_by`, the parts must agree among themselves.
    """
    values: dict[Key, Sequence[float | None]] = {}
    expected: dict[str, object] | None = None if made_by is None else json.loads(_text(made_by))
    for file in sorted(path.glob("part-*.parquet")) if path.is_dir() else [path]:
        rows, found = _rows(path, file, name)
        expected = found if expected is None else expected
        if other := sorted(
            key for key in {*expected, *found} if expected.get(key) != found.get(key)
        ):
            raise UserError(
                f"{file} is stale: another model, other data or other settings made it "
                f"than this run has (other: "
                f"{', '.join(other)}); {_remedy(path)}"
            )
        values |= rows
    return StoredColumn(name, path, values)


def _rows(
    path: Path, file: Path, name: str
) -> tuple[dict[Key, Sequence[float | None]], dict[str, object]]:
    """What one file of a store holds, and what made it."""
    from pyarrow import ArrowException
    from pyarrow.parquet import read_table

    try:
        table = read_table(file)
        told = {
            key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()
        }
        made_by: dict[str, object] = json.loads(told.get(MADE_BY, "{}"))
    except (ArrowException, OSError, ValueError) as error:
        raise UserError(
            f"column {name!r}: {file} cannot be read as Parquet ({error}); {_remedy(path)}"
        ) from error
    if missing := {SAMPLE, HASH, name, MADE_BY} - {*table.column_names, *told}:
        has = ", ".join(table.column_names)
        raise UserError(
            f"column {name!r}: {file} has no {', '.join(sorted(missing))} (it has: {has}); "
            f"{_remedy(path)}"
        )
    cells = zip(*(table[column].to_pylist() for column in (SAMPLE, HASH, name)), strict=True)
    return {(sample, ids_hash): numbers or [] for sample, ids_hash, numbers in cells}, made_by


def _text(made_by: MadeBy) -> str:
    return json.dumps(made_by, sort_keys=True, indent=1)


def _remedy(path: Path) -> str:
    return f"remove {path} and run `reasontrain score RECIPE`"


def _fault(rollout: Rollout, values: Sequence[float | None]) -> str:
    """What is wrong with numbers as a response's; "" where nothing is."""
    if len(values) != len(rollout.response_ids):
        return f"has {len(values)} numbers for {len(rollout.response_ids)} response tokens"
    wrong = next(
        (index for index, value in enumerate(values) if value is None or not math.isfinite(value)),
        None,
    )
    return (
        ""
        if wrong is None
        else f"holds {values[wrong]} at response token {wrong}, where a finite number was expected"
    )
