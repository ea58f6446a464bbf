"""Stored evidence is found by the ids that it is about, or refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from pyarrow.parquet import read_table, write_table

from reasontrain.data import pair_columns
from reasontrain.types import Problem, Rollout, UserError

ROW = (
    Rollout(problem=Problem(id="a", prompt=""), id=0, group=0, prompt_ids=(1, 2), response_ids=(3,)),
    Rollout(problem=Problem(id="a", prompt=""), id=1, group=0, prompt_ids=(1, 2), response_ids=(4, 5)),
)
VALUES = {pair_columns.key_of(ROW[1]): [-0.5, -1.25]}


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    pair_columns.write(tmp_path / "x.parquet", "ce_logscore", VALUES, "models")
    return tmp_path / "x.parquet"


def test_what_is_written_is_read_and_attached(stored: Path) -> None:
    found = pair_columns.read(stored, "ce_logscore")
    assert found == {pair_columns.key_of(ROW[1]): (-0.5, -1.25)}
    ((chosen, rejected),) = pair_columns.attach([ROW], "ce_logscore", found, optional=1)
    assert (chosen.evidence, rejected.evidence) == ({}, {"ce_logscore": (-0.5, -1.25)})
    table = read_table(stored)
    assert table.column_names == ["sample_id", "ids_hash", "made_by", "ce_logscore"]
    assert str(table.schema.field("ce_logscore").type) == "list<element: float>"
    assert [p.name for p in stored.parent.iterdir()] == ["x.parquet"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"response_ids": (4, 6)}, r"these token ids were not measured \(others of it were\)"),
        ({"prompt_ids": (1, 3)}, r"these token ids were not measured \(others of it were\)"),
        ({"prompt_ids": (1,), "response_ids": (2, 4, 5)}, r"these token ids were not measured \(others of it were\)"),
        ({"problem": Problem(id="b", prompt="")}, "nothing was measured of it"),
    ],
)
def test_a_stale_column_is_an_error(stored: Path, change: dict[str, object], why: str) -> None:
    other = (ROW[0], replace(ROW[1], **change))
    with pytest.raises(UserError, match=f"evidence.ce_logscore: sample . has no stored numbers: {why}"):
        pair_columns.attach([other], "ce_logscore", pair_columns.read(stored, "ce_logscore"), optional=1)


def test_a_missing_side_is_an_error_unless_nobody_reads_it(stored: Path) -> None:
    with pytest.raises(UserError, match="sample a has no stored numbers"):
        pair_columns.attach([ROW], "ce_logscore", pair_columns.read(stored, "ce_logscore"))


def test_a_column_of_another_length_is_an_error() -> None:
    with pytest.raises(UserError, match="sample a has 1 numbers for 2 response tokens"):
        pair_columns.attach([ROW], "ce_logscore", {pair_columns.key_of(ROW[1]): (-0.5,)}, optional=1)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_is_an_error(tmp_path: Path, bad: float) -> None:
    pair_columns.write(tmp_path / "x.parquet", "ce_logscore", {pair_columns.key_of(ROW[1]): [-0.5, bad]}, "models")
    with pytest.raises(UserError, match="holds a number that is not finite, for sample a"):
        pair_columns.read(tmp_path / "x.parquet", "ce_logscore")


def test_other_files_are_errors(stored: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no column ref_logp"):
        pair_columns.read(stored, "ref_logp")
    (tmp_path / "y.parquet").write_text("no")
    with pytest.raises(UserError, match="cannot be read as Parquet"):
        pair_columns.read(tmp_path / "y.parquet", "ce_logscore")
    with pytest.raises(UserError, match="cannot be read as Parquet"):
        pair_columns.read(tmp_path / "none.parquet", "ce_logscore")
    table = read_table(stored)
    both = table.set_column(2, "made_by", [["a"]])
    import pyarrow

    write_table(pyarrow.concat_tables([table, both]), tmp_path / "z.parquet")
    with pytest.raises(UserError, match="mixes numbers of 2 makers"):
        pair_columns.read(tmp_path / "z.parquet", "ce_logscore")
