"""Stored evidence: what is written is read again, and whatever does not fit is named with its sample."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow
import pytest
from hypothesis import given
from hypothesis.strategies import floats, integers, lists, tuples
from pyarrow.parquet import read_table, write_table

from reasontrain.data.columns import ABOUT, ColumnStore, Sample, digest
from reasontrain.types import RunError, UserError

NAMES = ("uncond_logp", "ce_logscore")
SAMPLES = [Sample("a", (5, 6, 7)), Sample("b", (8,)), Sample("c", ())]
VALUES = {
    "uncond_logp": [[-0.5, -1e-7, -20.0], [-1.0], []],
    "ce_logscore": [[0.25, -3.0, 1e6], [0.0], []],
}


@pytest.fixture
def store(tmp_path: Path) -> ColumnStore:
    """Two columns of three samples, in two parts."""
    made = ColumnStore(tmp_path / "columns", NAMES, {"weights": "w"})
    made.write(0, SAMPLES[:2], {name: values[:2] for name, values in VALUES.items()})
    made.write(1, SAMPLES[2:], {name: values[2:] for name, values in VALUES.items()})
    return made


def part(store: ColumnStore, number: int = 0) -> Path:
    return store.directory / f"part-{number:05d}.parquet"


def test_columns_are_read_by_sample_in_float32(store: ColumnStore) -> None:
    again = ColumnStore(store.directory.parent, NAMES, {"weights": "w"})
    assert (again.has(0), again.has(1), again.has(2)) == (True, True, False)
    found = again.read([SAMPLES[1], SAMPLES[2], SAMPLES[0]])
    assert list(found) == ["b", "c", "a"]
    assert found["b"] == {"uncond_logp": (-1.0,), "ce_logscore": (0.0,)}
    assert found["c"] == {"uncond_logp": (), "ce_logscore": ()}
    assert found["a"]["uncond_logp"] == pytest.approx((-0.5, -1e-7, -20.0), rel=1e-7)
    assert json.loads((store.directory / ABOUT).read_text()) == {"columns": list(NAMES), "weights": "w"}


@given(rows=lists(lists(tuples(integers(0, 2**40), floats(-(2.0**100), 2.0**100, width=32)), max_size=5), min_size=1, max_size=4))
def test_every_finite_number_round_trips(tmp_path_factory: pytest.TempPathFactory, rows: list[list[tuple[int, float]]]) -> None:
    made = ColumnStore(tmp_path_factory.mktemp("columns"), ["uncond_logp"], {})
    samples = [Sample(str(index), tuple(i for i, _ in row)) for index, row in enumerate(rows)]
    made.write(0, samples, {"uncond_logp": [[value for _, value in row] for row in rows]})
    assert [list(columns["uncond_logp"]) for columns in made.read(samples).values()] == [[v for _, v in row] for row in rows]


def test_another_model_or_another_setting_is_another_store(tmp_path: Path) -> None:
    directories = {
        ColumnStore(tmp_path, NAMES, made_by).directory.name
        for made_by in ({"weights": "w"}, {"weights": "v"}, {"weights": "w", "dtype": "bfloat16"})
    }
    assert len(directories) == 3


def test_a_digest_tells_data_apart_and_not_their_order() -> None:
    assert digest(SAMPLES) == digest(SAMPLES[::-1])
    others = [Sample("a", (5, 6, 8)), *SAMPLES[1:]], [Sample("z", (5, 6, 7)), *SAMPLES[1:]], SAMPLES[1:]
    assert len({digest(SAMPLES), *map(digest, others)}) == 4


# ---- what does not fit


@pytest.mark.parametrize(
    ("sample", "said"),
    [
        (Sample("d", (1,)), "column 'uncond_logp' of sample 'd' is missing"),
        (Sample("a", (5, 6, 8)), "column 'uncond_logp' of sample 'a' is of another response"),
    ],
    ids=["missing", "misaligned"],
)
def test_a_sample_that_was_not_scored_is_named(store: ColumnStore, sample: Sample, said: str) -> None:
    with pytest.raises(UserError, match=said):
        store.read([SAMPLES[1], sample])


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([-0.5, float("nan"), -1.0], "column 'ce_logscore' of sample 'a' holds nan at response token 1"),
        ([-0.5, -1.0, float("-inf")], "column 'ce_logscore' of sample 'a' holds -inf at response token 2"),
        ([-0.5, None, -1.0], "column 'ce_logscore' of sample 'a' holds None at response token 1"),
        ([-0.5, -1.0], "column 'ce_logscore' of sample 'a' has 2 numbers for 3 response tokens"),
    ],
    ids=["NaN", "infinite", "null", "too short"],
)
def test_a_damaged_column_is_named_with_its_sample(store: ColumnStore, values: list[float | None], said: str) -> None:
    table = read_table(part(store))
    changed = pyarrow.array([values, [0.0]], type=pyarrow.list_(pyarrow.float32()))
    write_table(table.set_column(table.column_names.index("ce_logscore"), "ce_logscore", changed), part(store))
    with pytest.raises(UserError, match=said):
        store.read(SAMPLES)


def test_a_column_that_is_not_there_is_named(store: ColumnStore) -> None:
    write_table(read_table(part(store)).drop_columns(["ce_logscore"]), part(store))
    with pytest.raises(UserError, match="column 'ce_logscore' of sample 'a' is missing"):
        store.read(SAMPLES)


def test_a_file_that_another_model_made_is_stale(store: ColumnStore) -> None:
    other = ColumnStore(store.directory.parent, NAMES, {"weights": "v"})
    other.directory.mkdir()
    part(store).rename(part(other))
    with pytest.raises(UserError, match=r"is stale \(sample 'a' and 1 others\): another model, other data or other settings"):
        other.read(SAMPLES)


def test_a_file_that_is_no_parquet_is_named(store: ColumnStore) -> None:
    part(store).write_bytes(part(store).read_bytes()[:-9])
    with pytest.raises(UserError, match=r"part-00000\.parquet cannot be read as Parquet"):
        store.read(SAMPLES)


def test_what_is_not_finite_is_never_written(tmp_path: Path) -> None:
    made = ColumnStore(tmp_path, ["uncond_logp"], {})
    with pytest.raises(RunError, match="sample 'b' was computed wrongly: holds nan at response token 0"):
        made.write(0, SAMPLES[:2], {"uncond_logp": [[-0.5, -1.0, -2.0], [float("nan")]]})
    assert not made.has(0)
