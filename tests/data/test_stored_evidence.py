"""Stored evidence: what is written is read again by the ids that it is of, and whatever does not
fit is named with its sample.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow
import pytest
from hypothesis import given
from hypothesis.strategies import floats, integers, lists, tuples
from pyarrow.parquet import read_schema, read_table, write_table

from reasontrain.data.stored_evidence import (
    digest,
    directory_of,
    hash_of,
    key_of,
    part_of,
    read,
    write,
)
from reasontrain.types import Problem, Rollout, RunError, UserError

NAME = "ce_logscore"
MADE_BY = {"model": "w", "ce_beta": 1.0}


def response(
    sample: str, response_ids: Sequence[int], *, id: int = 0, prompt_ids: Sequence[int] = (1, 2)
) -> Rollout:
    return Rollout(
        problem=Problem(id=sample, prompt=""),
        id=id,
        group=0,
        prompt_ids=tuple(prompt_ids),
        response_ids=tuple(response_ids),
    )


PAIR = (response("a", (3,)), response("a", (4, 5), id=1))
RESPONSES = [*PAIR, response("b", (6, 7, 8)), response("c", ())]
VALUES = [[0.25], [-0.5, -1e-7], [-20.0, 1e6, 0.0], []]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A column in one file."""
    write(tmp_path / "x.parquet", NAME, RESPONSES, VALUES, MADE_BY)
    return tmp_path / "x.parquet"


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """The same column in a directory of two parts."""
    where = directory_of(tmp_path / "columns", NAME, MADE_BY)
    write(part_of(where, 0), NAME, RESPONSES[:3], VALUES[:3], MADE_BY)
    write(part_of(where, 1), NAME, RESPONSES[3:], VALUES[3:], MADE_BY)
    return where


@pytest.mark.parametrize("store", ["file", "parts"])
def test_a_column_is_read_by_response_in_float32(
    store: str, request: pytest.FixtureRequest
) -> None:
    path: Path = request.getfixturevalue(store)
    column = read(path, NAME, MADE_BY)
    for rollout, values in zip(RESPONSES[::-1], VALUES[::-1], strict=True):
        assert column.of(rollout) == pytest.approx(values, rel=1e-7)
    assert read(path, NAME) == column
    (first, *_) = sorted(path.glob("*")) if path.is_dir() else [path]
    schema = read_schema(first)
    assert schema.names == ["sample_id", "ids_hash", NAME]
    assert str(schema.field(NAME).type) == "list<element: float>"
    assert json.loads(schema.metadata[b"made_by"]) == MADE_BY
    assert not list(path.parent.rglob("*.partial"))


@given(
    rows=lists(
        lists(tuples(integers(0, 2**40), floats(-(2.0**100), 2.0**100, width=32)), max_size=5),
        min_size=1,
        max_size=4,
    )
)
def test_every_finite_number_round_trips(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[tuple[int, float]]]
) -> None:
    path = tmp_path_factory.mktemp("columns") / "x.parquet"
    responses = [response(str(index), [i for i, _ in row]) for index, row in enumerate(rows)]
    write(path, NAME, responses, [[value for _, value in row] for row in rows], {})
    assert [list(read(path, NAME).of(r)) for r in responses] == [
        [v for _, v in row] for row in rows
    ]


def test_numbers_are_joined_to_the_rollouts_beside_what_is_there(file: Path) -> None:
    chosen, rejected = read(file, NAME).joined(
        [PAIR[0], replace(PAIR[1], evidence={"ref_logp": (-1.0, -2.0)})]
    )
    assert chosen.evidence == {NAME: (0.25,)}
    assert rejected.evidence == {NAME: (-0.5, pytest.approx(-1e-7)), "ref_logp": (-1.0, -2.0)}


def test_a_side_that_nobody_reads_may_lack_its_numbers(tmp_path: Path) -> None:
    write(tmp_path / "x.parquet", NAME, PAIR[1:], VALUES[1:2], MADE_BY)
    column = read(tmp_path / "x.parquet", NAME)
    chosen, rejected = column.joined(PAIR, optional=1)
    assert (chosen.evidence, set(rejected.evidence)) == ({}, {NAME})
    with pytest.raises(
        UserError, match="column 'ce_logscore' of sample 'a' belongs to another response"
    ):
        column.joined(PAIR)
    with pytest.raises(
        UserError, match="column 'ce_logscore' of sample 'a' belongs to another response"
    ):
        column.joined([PAIR[1], replace(PAIR[1], response_ids=(4, 6))], optional=1)


def test_another_model_or_another_setting_is_another_directory(tmp_path: Path) -> None:
    makers = ({"model": "w"}, {"model": "v"}, {"model": "w", "ce_beta": 0.5})
    assert len({directory_of(tmp_path, NAME, made_by).name for made_by in makers}) == 3


def test_keys_and_digests_tell_ids_apart() -> None:
    changes: list[dict[str, object]] = [
        {"response_ids": (4, 6)},
        {"prompt_ids": (1, 3)},
        {"prompt_ids": (1,), "response_ids": (2, 4, 5)},  # the same ids, parted elsewhere
        {"problem": Problem(id="z", prompt="")},
    ]
    others = [replace(PAIR[1], **change) for change in changes]
    assert len({key_of(r) for r in [PAIR[1], *others]}) == 5
    assert digest(RESPONSES) == digest(RESPONSES[::-1])
    assert len({digest([PAIR[0], r]) for r in [PAIR[1], *others]} | {digest(PAIR[:1])}) == 6
    assert hash_of((1, 2)) != hash_of((2, 1))


# ---- what does not fit


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"response_ids": (4, 6)},
            "'a' belongs to another response: these token ids were not scored",
        ),
        (
            {"prompt_ids": (1, 3)},
            "'a' belongs to another response: these token ids were not scored",
        ),
        (
            {"prompt_ids": (1,), "response_ids": (2, 4, 5)},
            "'a' belongs to another response: these token ids were not scored",
        ),
        ({"problem": Problem(id="z", prompt="")}, "'z' is missing"),
    ],
    ids=["response", "prompt", "cut", "sample"],
)
@pytest.mark.parametrize("store", ["file", "parts"])
def test_a_response_that_was_not_scored_is_named(
    store: str, request: pytest.FixtureRequest, change: dict[str, object], said: str
) -> None:
    path: Path = request.getfixturevalue(store)
    with pytest.raises(
        UserError,
        match=f"the stored column 'ce_logscore' of sample {said}; remove {path} and run "
        f"`reasontrain",
    ):
        read(path, NAME).of(replace(PAIR[1], **change))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([-0.5, float("nan")], "holds nan at response token 1"),
        ([float("-inf"), -0.5], "holds -inf at response token 0"),
        ([-0.5, None], "holds None at response token 1"),
        ([-0.5], "has 1 numbers for 2 response tokens"),
        (None, "has 0 numbers for 2 response tokens"),
    ],
    ids=["NaN", "infinite", "null", "too short", "nothing"],
)
def test_a_damaged_column_is_named_with_its_sample(
    file: Path, values: list[float | None] | None, said: str
) -> None:
    table = read_table(file)
    changed = pyarrow.array([VALUES[0], values, *VALUES[2:]], type=pyarrow.list_(pyarrow.float32()))
    write_table(table.set_column(2, NAME, changed), file)
    column = read(file, NAME)
    assert column.of(PAIR[0]) == (0.25,)
    with pytest.raises(UserError, match=f"column 'ce_logscore' of sample 'a' {said}"):
        column.of(PAIR[1])


def test_what_another_model_made_is_stale(file: Path, parts: Path) -> None:
    for path in (file, parts):
        with pytest.raises(
            UserError,
            match=r"is stale: it was made with another model, other data or other settings "
            r".*\(different: model\)",
        ):
            read(path, NAME, {**MADE_BY, "model": "v"})
    with pytest.raises(UserError, match=r"is stale: .*\(different: ce_beta, samples\)"):
        read(parts, NAME, {"model": "w", "samples": "s"})


def test_parts_of_two_makers_are_not_mixed(parts: Path) -> None:
    write(part_of(parts, 2), NAME, [response("d", (1,))], [[0.0]], {**MADE_BY, "model": "v"})
    with pytest.raises(UserError, match=r"part-00002\.parquet is stale: .*\(different: model\)"):
        read(parts, NAME)


def test_other_files_are_errors(file: Path, parts: Path) -> None:
    with pytest.raises(
        UserError,
        match=r"column 'ref_logp': .*x\.parquet has no ref_logp \(it has: sample_id, ids_hash, "
        r"ce_log",
    ):
        read(file, "ref_logp")
    write_table(read_table(file).replace_schema_metadata(None), file)
    with pytest.raises(UserError, match="has no made_by"):
        read(file, NAME)
    with pytest.raises(UserError, match=r"none\.parquet cannot be read as Parquet"):
        read(file.with_name("none.parquet"), NAME)
    part_of(parts, 0).write_bytes(part_of(parts, 0).read_bytes()[:-9])
    with pytest.raises(UserError, match=r"part-00000\.parquet cannot be read as Parquet"):
        read(parts, NAME)


def test_what_is_not_finite_is_never_written(tmp_path: Path) -> None:
    with pytest.raises(
        RunError, match="sample 'a' was computed wrongly: it holds nan at response token 1"
    ):
        write(tmp_path / "x.parquet", NAME, PAIR, [[0.0], [0.0, float("nan")]], MADE_BY)
    with pytest.raises(
        RunError, match="sample 'a' was computed wrongly: it has 1 numbers for 2 response tokens"
    ):
        write(tmp_path / "x.parquet", NAME, PAIR, [[0.0], [0.0]], MADE_BY)
    assert not list(tmp_path.iterdir())
