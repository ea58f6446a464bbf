"""Stored log-probs of a teacher: what is written is read again by token ids, and what does not fit
is refused.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow
import pytest
import torch
from pyarrow.parquet import read_schema, read_table, write_table
from torch.testing import assert_close

from reasontrain.data.stored_top_k import TopKStore, TopKTokens, existing, write
from reasontrain.types import Problem, Rollout, RunError, UserError

MADE_BY = {"model": "t", "tokenizer": "x", "top_k": 2}


def response(sample: str, prompt_ids: tuple[int, ...], response_ids: tuple[int, ...]) -> Rollout:
    return Rollout(
        problem=Problem(id=sample, prompt="", source="data.jsonl:3"),
        id=0,
        group=0,
        prompt_ids=prompt_ids,
        response_ids=response_ids,
    )


def scored(num: int, start: float = 0.0, width: int = 2) -> TopKTokens:
    """Numbers of `num` tokens, each another one."""
    numbers = torch.arange(num * width).view(num, width)
    return TopKTokens(numbers + 7, -numbers - start - 0.5, -torch.arange(num) - start - 0.25)


RESPONSES = [response("a", (1, 2), (3,)), response("b", (1,), (4, 5, 6)), response("c", (9,), ())]
NUMBERS = [scored(1), scored(3, 0.125), scored(0)]


def test_numbers_are_found_by_ids_over_several_parts(tmp_path: Path) -> None:
    store = tmp_path / "store"
    assert TopKStore.read(store, MADE_BY).missing(RESPONSES) == [RESPONSES[i] for i in (2, 0, 1)]
    first = write(store, RESPONSES[:1], NUMBERS[:1], MADE_BY)
    write(store, RESPONSES[1:], NUMBERS[1:], MADE_BY)
    assert [part.name for part in existing(store)] == ["part-00000.parquet", "part-00001.parquet"]
    read = TopKStore.read(store, MADE_BY)
    read.check(RESPONSES)
    for rollout, expected in zip(RESPONSES, NUMBERS, strict=True):
        tokens = read.of([*rollout.prompt_ids, *rollout.response_ids])
        assert_close(tokens.logp_TK.reshape(-1), expected.logp_TK.reshape(-1).float())
        assert tokens.ids_TK.flatten().tolist() == expected.ids_TK.flatten().tolist()
        assert_close(tokens.log_rest_T, expected.log_rest_T.float())
    types = {field.name: str(field.type) for field in read_schema(first)}
    assert types["top_ids"] == "list<element: int32>"
    assert types["top_logp"] == types["log_rest"] == "list<element: float>"


def test_a_division_elsewhere_is_scored_if_its_response_is_longer(tmp_path: Path) -> None:
    write(tmp_path, RESPONSES[:2], NUMBERS[:2], MADE_BY)
    shorter, longer = response("d", (1, 4), (5, 6)), response("e", (1,), (2, 3))
    read = TopKStore.read(tmp_path)
    assert read.missing([shorter, longer]) == [longer]
    write(tmp_path, [longer], [scored(2, 0.5)], MADE_BY)
    assert len(TopKStore.read(tmp_path).of([1, 2, 3])) == 2


def test_a_response_that_was_not_scored_is_named(tmp_path: Path) -> None:
    write(tmp_path, RESPONSES[:1], NUMBERS[:1], MADE_BY)
    other = replace(RESPONSES[0], response_ids=(4,))
    with pytest.raises(
        UserError,
        match=r"holds no log-probs for the token ids of 1 of 2 responses, the first of them of "
        r"data.jsonl:3: problem a; run `reasontrain score RECIPE`",
    ):
        TopKStore.read(tmp_path).check([RESPONSES[0], other])
    with pytest.raises(UserError, match="holds no log-probs for a sequence of 3 tokens"):
        TopKStore.read(tmp_path).of([1, 2, 4])


@pytest.mark.parametrize("key", MADE_BY)
def test_another_teacher_tokenizer_or_number_of_ids_is_stale(tmp_path: Path, key: str) -> None:
    write(tmp_path, RESPONSES[:1], NUMBERS[:1], MADE_BY)
    with pytest.raises(UserError, match=rf"is stale: .*\(different: {key}\)"):
        TopKStore.read(tmp_path, {**MADE_BY, key: "other"})


def test_a_damaged_part_is_refused_and_not_written(tmp_path: Path) -> None:
    part = write(tmp_path, RESPONSES[:2], NUMBERS[:2], MADE_BY)
    table = read_table(part)
    for column in ("top_ids", "top_logp", "log_rest"):
        write_table(table.drop_columns([column]), part)
        with pytest.raises(UserError, match=f"has no {column}"):
            TopKStore.read(tmp_path)
    index = table.column_names.index("top_logp")
    write_table(table.set_column(index, "top_logp", table["top_logp"].take([1, 0])), part)
    with pytest.raises(UserError, match="is damaged: a response of 1 tokens has 2 ids and 6"):
        TopKStore.read(tmp_path)
    halves = [[0.0, float("nan")], *table["top_logp"].to_pylist()[1:]]
    write_table(
        table.set_column(
            index, "top_logp", pyarrow.array(halves, pyarrow.list_(pyarrow.float32()))
        ),
        part,
    )
    with pytest.raises(UserError, match="it holds a log-prob that is not finite"):
        TopKStore.read(tmp_path)
    broken = replace(NUMBERS[0], logp_TK=torch.tensor([[0.0, float("nan")]]))
    with pytest.raises(RunError, match="log-probs of problem a are not finite"):
        write(tmp_path, RESPONSES[:1], [broken], MADE_BY)
