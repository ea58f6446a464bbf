"""Tables and rows by name."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reasontrain.bench import tables
from reasontrain.bench.case import BenchCase, BenchMachine, NoPeerError
from reasontrain.models import ModelSettings
from reasontrain.types import UserError
from tests.bench.toys import MACHINE, DecodeInputs, row


@pytest.fixture(autouse=True)
def _two_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows a and b in one table, c in another."""
    clock = DecodeInputs()
    toy = row(clock.variant("we", [1.0]), clock.variant("they", [1.0]))
    a, b, c = (replace(toy, name=name) for name in "abc")
    monkeypatch.setattr(
        tables, "TABLES", {"first": lambda machine: [a, b], "second": lambda machine: [c]}
    )


def names(found: dict[str, list[BenchCase]]) -> dict[str, str]:
    return {table: "".join(row.name for row in rows) for table, rows in found.items()}


def test_tables_that_are_named_or_all_and_rows_that_are_wanted():
    assert names(tables.rows(["second"], MACHINE, [])) == {"second": "c"}
    assert names(tables.rows(["all"], MACHINE, [])) == {"first": "ab", "second": "c"}
    assert names(tables.rows(["all"], MACHINE, ["c", "a"])) == {"first": "a", "second": "c"}


def test_unknown_names_are_told_what_there_is():
    with pytest.raises(UserError, match="no table 'thrid'; choose from first, second, or all"):
        tables.rows(["first", "thrid"], MACHINE, [])
    with pytest.raises(UserError, match="no case 'c' in first; the cases are: a, b"):
        tables.rows(["first"], MACHINE, ["c"])


def test_a_model_has_tables_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = DecodeInputs()
    toy = row(clock.variant("we", [1.0]), clock.variant("they", [1.0]))
    monkeypatch.setattr(tables, "PRETRAINED", {"second": lambda machine: [replace(toy, name="d")]})
    machine = replace(MACHINE, model=ModelSettings(path="owner/model"))
    assert names(tables.rows(["all"], machine, [])) == {"second": "d"}
    with pytest.raises(
        UserError, match="--model: the table first runs no model; choose from second"
    ):
        tables.rows(["second", "first"], machine, [])


def test_every_table_with_a_model_is_a_table() -> None:
    assert set(tables.PRETRAINED) < {"vocab", "sample", "step", "grade", "evaluate"}


def test_all_leaves_out_a_table_without_its_peer_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def alone(machine: BenchMachine) -> list[BenchCase]:
        raise NoPeerError("the peer is not installed")

    monkeypatch.setattr(tables, "TABLES", {**tables.TABLES, "third": alone})
    assert names(tables.rows(["all"], MACHINE, [])) == {"first": "ab", "second": "c"}
    assert caplog.messages == ["third is left out: the peer is not installed"]
    with pytest.raises(NoPeerError, match="the peer is not installed"):
        tables.rows(["third", "all"], MACHINE, [])
