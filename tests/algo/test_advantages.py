"""Advantages by hand, and what they must not depend on."""

import pytest
import torch
from hypothesis import given
from hypothesis.strategies import integers
from torch import tensor
from torch.testing import assert_close

from reasontrain.algo.advantages import (
    Advantage,
    GroupNormalized,
    LeaveOneOut,
    MeanCentred,
    NoAdvantage,
)
from reasontrain.types import UserError

ALL: list[Advantage] = [GroupNormalized(), LeaveOneOut(), MeanCentred(), NoAdvantage()]
GROUPED = ALL[:3]


@pytest.mark.parametrize(
    ("advantage", "expected"),
    [
        # group 7 holds 1, 0, 0, 1: mean 1/2, variance (4 * 1/4) / 3 = 1/3
        # group 3 holds 2, 5: mean 3.5, variance (2 * 2.25) / 1 = 4.5
        (
            GroupNormalized(eps=0.0),
            [0.75**0.5, -(0.5**0.5), -(0.75**0.5), -(0.75**0.5), 0.5**0.5, 0.75**0.5],
        ),
        # others' means: of 1: (0+0+1)/3 = 1/3; of 0: 2/3; of 2: 5; of 5: 2
        (LeaveOneOut(), [2 / 3, -3.0, -2 / 3, -2 / 3, 3.0, 2 / 3]),
        (MeanCentred(), [0.5, -1.5, -0.5, -0.5, 1.5, 0.5]),
        (NoAdvantage(), [0.0] * 6),
    ],
)
def test_by_hand_with_groups_that_are_mixed(advantage: Advantage, expected: list[float]):
    reward_B, group_B = tensor([1.0, 2.0, 0.0, 0.0, 5.0, 1.0]), tensor([7, 3, 7, 7, 3, 7])
    assert_close(advantage(reward_B, group_B), tensor(expected), rtol=1e-6, atol=1e-7)


def test_eps_sits_beside_the_standard_deviation():  # rewards 0, 1: mean 1/2, std sqrt(1/2)
    assert_close(
        GroupNormalized(eps=0.5)(tensor([0.0, 1.0]), tensor([0, 0]))[1].item(),
        0.5 / (0.5**0.5 + 0.5),
        rtol=1e-6,
        atol=0,
    )


def test_rewards_that_differ_by_rounding_only_earn_nothing():
    reward_B, group_B = tensor([0.3, 0.3 + 1e-6, 0.3, 1.0, 1.0, 1.0]), tensor([0, 0, 0, 1, 1, 1])
    assert torch.equal(GroupNormalized()(reward_B, group_B), torch.zeros(6))
    assert GroupNormalized(std_floor=0.0, eps=0.0)(reward_B, group_B)[1] > 1


def test_large_offsets_do_not_lose_the_differences():  # in fp32 squares, 1e6 + 1 would drown
    assert_close(LeaveOneOut()(tensor([1e6, 1e6 + 1]), tensor([0, 0])), tensor([-1.0, 1.0]))


@pytest.mark.parametrize("advantage", GROUPED)
def test_a_lonely_rollout_is_refused(advantage: Advantage):
    with pytest.raises(UserError, match=r"1 of 2 groups \(group 4\)"):
        advantage(tensor([1.0, 0.0, 1.0]), tensor([2, 2, 4]))
    assert torch.equal(NoAdvantage()(tensor([1.0]), tensor([4])), tensor([0.0]))


@pytest.mark.parametrize("advantage", ALL)
def test_no_rollouts_at_all(advantage: Advantage):
    assert advantage(torch.empty(0), torch.empty(0, dtype=torch.long)).shape == (0,)


@given(seed=integers(0, 10_000))
def test_order_does_not_matter_and_groups_sum_to_zero(seed: int):
    draw = torch.Generator().manual_seed(seed)
    reward_B, group_B = torch.rand(12, generator=draw), torch.arange(12) % 3
    order_B = torch.randperm(12, generator=draw)
    for advantage in ALL:
        advantage_B = advantage(reward_B, group_B)
        assert_close(
            advantage(reward_B[order_B], group_B[order_B]),
            advantage_B[order_B],
            rtol=1e-6,
            atol=1e-7,
        )
        assert_close(
            torch.stack([advantage_B[group_B == g].sum() for g in range(3)]),
            torch.zeros(3),
            rtol=0,
            atol=2e-6,
        )
