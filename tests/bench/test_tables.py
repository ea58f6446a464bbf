"""Tables and rows by name."""

from __future__ import annotations

from dataclasses import replace

import pytest

from reasontrain.bench import tables
from reasontrain.bench.case import BenchCase, BenchMachine, NoPeerError
from reasontrain.types import UserError
from tests.bench.toys import PLACE, DecodeInputs, row


@pytest.fixture(autouse=True)
def _two_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows a and b in one table, c in another."""
    clock = DecodeInputs()
    toy = row(clock.way("we", [1.0]), clock.way("they", [1.0]))
    a, b, c = (replace(toy, name=name) for name in "abc")
    monkeypatch.setattr(
        tables, "TABLES", {"first": lambda place: [a, b], "second": lambda place: [c]}
    )


def names(found: dict[str, list[BenchCase]]) -> dict[str, str]:
    return {table: "".join(row.name for row in rows) for table, rows in found.items()}


def test_tables_that_are_named_or_all_and_rows_that_are_wanted():
    assert names(tables.rows(["second"], PLACE, [])) == {"second": "c"}
    assert names(tables.rows(["all"], PLACE, [])) == {"first": "ab", "second": "c"}
    assert names(tables.rows(["all"], PLACE, ["c", "a"])) == {"first": "a", "second": "c"}


def test_unknown_names_are_told_what_there_is():
    with pytest.raises(UserError, match="no table 'thrid'; there is: first, second"):
        tables.rows(["first", "thrid"], PLACE, [])
    with pytest.raises(UserError, match="no row 'c' in first; there is: a, b"):
        tables.rows(["first"], PLACE, ["c"])


def test_all_leaves_out_a_table_without_its_peer_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def alone(place: BenchMachine) -> list[BenchCase]:
        raise NoPeerError("the peer is not installed")

    monkeypatch.setattr(tables, "TABLES", {**tables.TABLES, "third": alone})
    assert names(tables.rows(["all"], PLACE, [])) == {"first": "ab", "second": "c"}
    assert caplog.messages == ["third is left out: the peer is not installed"]
    with pytest.raises(NoPeerError, match="the peer is not installed"):
        tables.rows(["third", "all"], PLACE, [])
