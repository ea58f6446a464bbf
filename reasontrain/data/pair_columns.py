"""Evidence that was measured before a run: one number per response token in Parquet, found again by the very ids it is about."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from reasontrain.types import Rollout, UserError

Key = tuple[str, str]
"""The sample's id, and a hash of its prompt's and response's token ids."""


def key_of(rollout: Rollout) -> Key:
    """What a rollout's stored evidence is found by."""
    ids = f"{list(rollout.prompt_ids)} {list(rollout.response_ids)}"
    return rollout.problem.id, hashlib.sha256(ids.encode()).hexdigest()[:24]


def write(path: Path, name: str, values: Mapping[Key, Sequence[float]], made_by: str) -> None:
    """One row per response: sample_id, ids_hash, made_by (fingerprints of models and settings), and the column as float32."""
    import pyarrow
    from pyarrow.parquet import write_table

    columns = {
        "sample_id": pyarrow.array([sample for sample, _ in values]),
        "ids_hash": pyarrow.array([ids for _, ids in values]),
        "made_by": pyarrow.array([made_by] * len(values)),
        name: pyarrow.array([list(column) for column in values.values()], type=pyarrow.list_(pyarrow.float32())),
    }
    part = path.with_name(f".{path.name}.part")
    write_table(pyarrow.table(columns), part)
    part.replace(path)


def read(path: Path, name: str) -> dict[Key, tuple[float, ...]]:
    """A stored column; raises UserError where it is another one, holds a number that is not finite, or two models made it."""
    from pyarrow import ArrowException
    from pyarrow.parquet import read_table

    try:
        table = read_table(path)
    except (ArrowException, OSError) as error:
        raise UserError(f"evidence.{name}: {path} cannot be read as Parquet: {error}") from error
    missing = {"sample_id", "ids_hash", "made_by", name} - set(table.column_names)
    if missing:
        raise UserError(
            f"evidence.{name}: {path} has no column {', '.join(sorted(missing))} (it has: {', '.join(table.column_names)})"
        )
    makers = set(table["made_by"].to_pylist())
    if len(makers) > 1:
        raise UserError(f"evidence.{name}: {path} mixes numbers of {len(makers)} makers ({', '.join(sorted(makers)[:3])})")
    found = {}
    for sample, ids, values in zip(*(table[c].to_pylist() for c in ("sample_id", "ids_hash", name)), strict=True):
        if not all(value is not None and math.isfinite(value) for value in values):
            raise UserError(f"evidence.{name}: {path} holds a number that is not finite, for sample {sample}; measure it anew")
        found[sample, ids] = tuple(values)
    return found


def attach(
    rows: Sequence[tuple[Rollout, ...]], name: str, values: Mapping[Key, tuple[float, ...]], *, optional: int = 0
) -> list[tuple[Rollout, ...]]:
    """The rollouts with their stored numbers; the first `optional` responses of a row may have none.

    Raises UserError where another one has none, because its ids changed since, or where their number is not its length.
    """
    return [tuple(_attached(rollout, name, values, needed=i >= optional) for i, rollout in enumerate(row)) for row in rows]


def _attached(rollout: Rollout, name: str, values: Mapping[Key, tuple[float, ...]], *, needed: bool) -> Rollout:
    key = key_of(rollout)
    if key not in values:
        if not needed:
            return rollout
        known = any(sample == key[0] for sample, _ in values)
        why = "these token ids were not measured (others of it were)" if known else "nothing was measured of it"
        raise UserError(f"evidence.{name}: sample {key[0]} has no stored numbers: {why}; measure the column anew")
    if len(values[key]) != len(rollout.response_ids):
        raise UserError(
            f"evidence.{name}: sample {key[0]} has {len(values[key])} numbers for {len(rollout.response_ids)} response tokens; "
            "measure the column anew"
        )
    return replace(rollout, evidence={**rollout.evidence, name: values[key]})
