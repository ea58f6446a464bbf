"""Micro-batches hold every rollout once, keep to the budget, and know which hidden row predicts
which token.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from hypothesis import given
from hypothesis.strategies import integers, lists, sampled_from

from reasontrain.data.micro_batches import (
    Layout,
    MicroBatchTokens,
    SequenceShard,
    build_micro_batch,
    make_mini_batches,
    pack_micro_batches,
)
from tests.tiny import batch


@given(
    lengths=lists(integers(1, 50), min_size=1, max_size=30),
    budget=integers(1, 200),
    layout=sampled_from(["padded", "packed"]),
)
def test_every_rollout_is_in_one_part_and_a_part_keeps_to_the_budget(
    lengths: list[int], budget: int, layout: Layout
) -> None:
    parts = pack_micro_batches(torch.tensor(lengths), budget, layout)
    assert sorted(index for part in parts for index in part) == list(range(len(lengths)))
    for part in parts:
        sizes = [lengths[index] for index in part]
        cost = len(sizes) * max(sizes) if layout == "padded" else sum(sizes)
        assert len(part) == 1 or cost <= budget
    if len(parts) > 1:  # no part could have taken the first rollout of the next one
        for part, following in pairwise(parts):
            sizes = [lengths[index] for index in [*part, following[0]]]
            assert (len(sizes) * max(sizes) if layout == "padded" else sum(sizes)) > budget


def test_a_token_is_predicted_by_the_row_before_it() -> None:
    data = batch(num=4)
    for layout in ("padded", "packed"):
        micro = build_micro_batch(data, [2, 0, 3], layout)
        flat_ids, flat_positions = micro.ids_RT.flatten(), micro.position_RT.flatten()
        for local, index in enumerate(micro.index_K.tolist()):
            for token in range(1, int(data.length_B[index])):
                row = int(
                    MicroBatchTokens(
                        micro, torch.tensor([local]), torch.tensor([token])
                    ).logit_position_N
                )
                assert flat_ids[row] == data.ids_BT[index, token - 1]
                assert flat_positions[row] == token - 1


def test_columns_at_rows() -> None:
    data = batch()
    micro = build_micro_batch(data, [4, 1], "packed")
    tokens = MicroBatchTokens(micro, torch.tensor([1, 0]), torch.tensor([2, 3]))
    columns = tokens.fields(data)
    assert columns.ids_N.tolist() == [data.ids_BT[1, 2], data.ids_BT[4, 3]]
    assert columns.advantage_N.tolist() == [data.advantage_B[1], data.advantage_B[4]]
    assert columns.old_logp_N.tolist() == [data.old_logp_BT[1, 2], data.old_logp_BT[4, 3]]


def test_a_mask_finds_its_tokens_in_every_layout() -> None:
    data = batch(num=4)
    for layout in ("padded", "packed"):
        micro = build_micro_batch(data, [2, 0, 3], layout)
        wanted_BS = data.is_response_BT & (data.ids_BT % 2 == 0)
        found = micro.ids_RT[micro.to_layout(wanted_BS)].tolist()
        assert found == [i for row in (2, 0, 3) for i in data.ids_BT[row][wanted_BS[row]].tolist()]
        assert not build_micro_batch(data, [], layout).to_layout(wanted_BS).any()


def test_ranks_that_share_rows_hold_every_token_once() -> None:
    """What a rank's columns predict is what whole rows predict, and no token is lost or doubled."""
    data = batch(num=4, width=21)
    for layout in ("padded", "packed"):
        for index in ([2, 0, 3], [1], []):
            whole = build_micro_batch(data, index, layout)
            expected = whole.tokens(data.is_response_BT)
            for size in (2, 3, 5):
                seen = []
                for rank in range(size):
                    micro = whole.shared(SequenceShard(rank, size))
                    width = micro.ids_RT.shape[1]
                    assert width % size == 0
                    assert width - size < whole.ids_RT.shape[1] <= width
                    tokens = micro.tokens(data.is_response_BT)
                    columns = SequenceShard(rank, size).columns(width)
                    place_N = SequenceShard(rank, size).place(tokens.logit_position_N, width)
                    before_N = data.ids_BT[tokens.rollout_N, tokens.token_N - 1]
                    position_N = micro.position_RT[:, columns].flatten()[place_N]
                    assert micro.ids_RT[:, columns].flatten()[place_N].tolist() == before_N.tolist()
                    assert position_N.tolist() == (tokens.token_N - 1).tolist()
                    seen += zip(tokens.rollout_N.tolist(), tokens.token_N.tolist(), strict=True)
                assert sorted(seen) == sorted(
                    zip(expected.rollout_N.tolist(), expected.token_N.tolist(), strict=True)
                )


def test_a_batch_is_divided_over_groups_of_ranks_as_over_as_many_ranks() -> None:
    data = batch(num=7)
    for rank in range(6):
        ours, theirs = (
            make_mini_batches(data, 2, micro_batch_tokens=30, layout="packed", **division)
            for division in (
                {"rank": rank, "num_ranks": 6, "sequence_parallel": 3},
                {"rank": rank // 3, "num_ranks": 2},
            )
        )
        for one, other in zip(ours, theirs, strict=True):
            assert one.index_M.tolist() == other.index_M.tolist()
            for micro, whole in zip(one.micro_batches, other.micro_batches, strict=True):
                assert micro.index_K.tolist() == whole.index_K.tolist()
                assert micro.shard == SequenceShard(rank % 3, 3)
                assert whole.shard is None
