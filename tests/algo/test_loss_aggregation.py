"""Coefficients by hand, and what averaging must not depend on."""

import pytest
import torch
from hypothesis import given
from hypothesis.strategies import integers
from torch import tensor
from torch.testing import assert_close

from reasontrain.algo.loss_aggregation import LOSS_AGGREGATIONS
from reasontrain.types import BatchTotals

COUNTS = BatchTotals(
    rollouts=4,
    response_tokens=10,
    sampled_rollouts=8,
    sampled_tokens=20,
    kept_rollouts=2,
    kept_tokens=3,
    pairs=5,
    max_response_tokens=5,
)
WEIGHT_BT = tensor([[0.0, 1.0, 0.5], [0.0, 0.0, 2.0], [0.0, 0.0, 0.0]])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("seq_mean_token_mean", [[0, 0.25, 0.125], [0, 0, 1.0], [0, 0, 0]]),  # 1/2/2, .5/2/2; 2/1/2
        ("token_mean", [[0, 1 / 3, 1 / 6], [0, 0, 2 / 3], [0, 0, 0]]),
        ("response_token_mean", [[0, 0.1, 0.05], [0, 0, 0.2], [0, 0, 0]]),
        ("sampled_token_mean", [[0, 0.05, 0.025], [0, 0, 0.1], [0, 0, 0]]),
        ("seq_mean_token_sum", [[0, 0.25, 0.125], [0, 0, 0.5], [0, 0, 0]]),
        ("seq_mean_token_sum_norm", [[0, 0.05, 0.025], [0, 0, 0.1], [0, 0, 0]]),  # 1/4/5
        ("pair_mean", [[0, 0.2, 0.1], [0, 0, 0.4], [0, 0, 0]]),
    ],
)
def test_coefficients_by_hand(name: str, expected: list[list[float]]):
    assert_close(LOSS_AGGREGATIONS[name](WEIGHT_BT, COUNTS), tensor(expected))


@pytest.mark.parametrize("name", LOSS_AGGREGATIONS)
def test_an_empty_step_is_zeros(name: str):
    empty = BatchTotals(
        rollouts=0,
        response_tokens=0,
        sampled_rollouts=0,
        sampled_tokens=0,
        kept_rollouts=0,
        kept_tokens=0,
    )
    assert_close(LOSS_AGGREGATIONS[name](torch.zeros(2, 3), empty), torch.zeros(2, 3))


@given(seed=integers(0, 10_000), keep=integers(1, 6))
def test_a_constant_loss_does_not_depend_on_how_many_rows_are_kept(seed: int, keep: int):
    order_BT = torch.rand(3, 6, generator=torch.Generator().manual_seed(seed)).argsort(1)
    weight_BT = (order_BT < keep).float()
    totals = BatchTotals(
        rollouts=3,
        response_tokens=18,
        sampled_rollouts=3,
        sampled_tokens=18,
        kept_rollouts=3,
        kept_tokens=3 * keep,
    )
    for name in ("seq_mean_token_mean", "token_mean"):
        assert_close((LOSS_AGGREGATIONS[name](weight_BT, totals) * 0.7).sum(), tensor(0.7))


@given(cut=integers(0, 5), pad=integers(0, 3))
def test_neither_shards_nor_padding_change_a_coefficient(cut: int, pad: int):
    weight_BT = torch.rand(5, 4, generator=torch.Generator().manual_seed(cut)).round(decimals=1)
    totals = BatchTotals(
        rollouts=5,
        response_tokens=20,
        sampled_rollouts=5,
        sampled_tokens=20,
        kept_rollouts=5,
        kept_tokens=17,
        pairs=2,
    )
    for loss_aggregation in LOSS_AGGREGATIONS.values():
        whole_BT = loss_aggregation(weight_BT, totals)
        parts = [
            loss_aggregation(torch.nn.functional.pad(part_BT, (0, pad)), totals)[:, :4]
            for part_BT in (weight_BT[:cut], weight_BT[cut:])
        ]
        assert torch.equal(torch.cat(parts), whole_BT)
