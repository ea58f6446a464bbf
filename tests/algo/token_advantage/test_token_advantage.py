"""Advantages of tokens by hand, and what they promise."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis.strategies import integers
from torch import tensor
from torch.testing import assert_close

from reasontrain.algo.correction import TruncateRatio
from reasontrain.algo.loss_aggregation import token_mean
from reasontrain.algo.objectives import Grpo
from reasontrain.algo.token_advantage import (
    EntropyAdvantage,
    Gtpo,
    RolloutAdvantage,
    TokenAdvantage,
)
from reasontrain.run.loop import Method, with_token_advantages
from reasontrain.types import RunError

NAN = float("nan")
EVERY: list[TokenAdvantage] = [
    RolloutAdvantage(),
    EntropyAdvantage(),
    Gtpo(),
    Gtpo(mean="step"),
    Gtpo(wrong="inverse"),
]
few = settings(max_examples=8, deadline=None)


def by_hand(rows: list[list[float]]) -> torch.Tensor:
    return tensor(rows, dtype=torch.float64)


def test_entropy_is_added_up_to_a_share_of_the_advantage(steps):
    # 0.4 H is 0.2 and 0.8, |A| / 2 is 1 and 0.25; without an advantage nothing is added
    batch = replace(
        steps.of(
            [[1, 2, 2], [1, 2, 2], [1, 2, 0]], entropy=[[NAN, 0.5, 2], [9, 0.5, 2], [9, 1, 9]]
        ),
        advantage_B=tensor([2.0, -0.5, 0.0]),
    )
    shaped_BT = EntropyAdvantage()(batch)
    assert_close(shaped_BT[0, 1:], by_hand([2.2, 2.8]))
    assert_close(shaped_BT[1, 1:], by_hand([-0.3, -0.25]))
    assert shaped_BT[2, 1] == 0


def gtpo_step(steps):
    """Two groups; the first has two right answers, of two and of one token, and a wrong one."""
    batch = steps.of(
        [[1, 2, 2, 0], [1, 1, 2, 0], [1, 2, 4, 2], [1, 2, 0, 0]],
        entropy=[[NAN, 1, 3, 9], [9, 9, 0.5, 9], [9, 2, NAN, 0.25], [9, 4, 9, 9]],
    )
    return replace(batch, group_B=tensor([0, 0, 0, 5]), advantage_B=tensor([1.0, 2.0, -1.0, 3.0]))


def test_gtpo_compares_tokens_at_one_place_of_the_right_answers_of_a_group(steps):
    # the first place: 1 and 0.5, mean 0.75; the others have no rival: H over mean H is 1
    shaped_BT = Gtpo(bonus=0.3)(gtpo_step(steps))
    assert_close(shaped_BT[0, 1:3], by_hand([1 + 0.3 / 0.75, 1.3]))
    assert_close(shaped_BT[1, 2], by_hand(2 * (1 + 0.3 * 0.5 / 0.75)))
    assert_close(shaped_BT[2, [1, 3]], by_hand([-1.3, -1.3]))
    assert_close(shaped_BT[3, 1], by_hand(3 * 1.3))


def test_gtpo_over_the_step(steps):
    # 1, 3, 0.5, 2, 0.25 and 4: mean 10.75 / 6; inverses 1, 1/3, 2, 1/2, 4 and 1/4: mean 8.0833 / 6
    mean, inverse = 10.75 / 6, (1 + 1 / 3 + 2 + 0.5 + 4 + 0.25) / 6
    shaped_BT = Gtpo(bonus=0.3, mean="step", wrong="inverse")(gtpo_step(steps))
    assert_close(shaped_BT[0, 1:3], by_hand([1 + 0.3 / mean, 1 + 0.9 / mean]))
    assert_close(shaped_BT[2, [1, 3]], by_hand([-1 - 0.3 * 0.5 / inverse, -1 - 0.3 * 4 / inverse]))


def test_a_floor_bounds_the_inverse(steps):
    batch = replace(
        steps.of([[1, 2, 2]], entropy=[[0, 0, 0.5]]), advantage_B=tensor([-1.0])
    )  # 1 / 0.1 and 1 / 0.5, mean 6
    shaped_BT = Gtpo(bonus=1.0, mean="step", wrong="inverse", entropy_floor=0.1)(batch)
    assert_close(shaped_BT[0, 1:], by_hand([-1 - 10 / 6, -1 - 2 / 6]))


def test_certain_tokens_have_no_mean_to_compare_with(steps):
    batch = replace(steps.of([[1, 2]], entropy=[[0.0, 0.0]]), advantage_B=tensor([1.0]))
    assert Gtpo()(batch)[0, 1] == 1


@pytest.mark.parametrize("shape", EVERY, ids=repr)
@given(seed=integers(0, 10_000), left=integers(0, 3), turn=integers(0, 4))
@few
def test_a_layout_changes_nothing(steps, shape, seed, left, turn):
    batch = steps.random(seed)
    order_B = torch.arange(5).roll(turn)
    other = steps.padded(batch.take(order_B), left, 2)
    shaped_BT, moved_BT = shape(batch)[order_B], shape(other)
    among_BT = batch.take(order_B).is_response_BT
    assert_close(moved_BT[other.is_response_BT], shaped_BT[among_BT], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", EVERY, ids=repr)
def test_signs_stay_and_what_has_no_advantage_gets_none(steps, shape):
    batch = steps.random(3)
    batch = replace(batch, advantage_B=tensor([1.0, -2.0, 0.0, 0.5, -0.1]))
    shaped_BT = shape(batch)
    assert shaped_BT.dtype == torch.float64
    sign_BT = batch.advantage_B.sign().double()[:, None].expand(shaped_BT.shape)
    among_BT = batch.is_response_BT
    assert torch.equal(shaped_BT.sign()[among_BT], sign_BT[among_BT])


@pytest.mark.parametrize("shape", EVERY[1:], ids=repr)
def test_the_stated_evidence_is_read_and_checked(steps, shape):
    batch = steps.random(1)
    with pytest.raises(LookupError, match="entropy"):
        shape(replace(batch, evidence={}))
    broken_BT = torch.full(batch.ids_BT.shape, NAN)
    with pytest.raises(RunError, match="'entropy' is NaN or infinite"):
        shape(batch.with_evidence({"entropy": broken_BT}))


def test_the_correction_weighs_shaped_advantages(steps):
    batch = steps.of(
        [[1, 2, 2]],
        entropy=[[0, 0.5, 2.0]],
        old_logp=[[0, -1.0, -1.0]],
        sampled_logp=[[0, -1.0, -3.0]],
    )
    batch = replace(batch, advantage_B=tensor([2.0]))
    method = Method(
        objective=Grpo(),
        loss_aggregation=token_mean,
        token_advantage=EntropyAdvantage(),
        correction=TruncateRatio(cap=3.0),
    )
    advantage_BT = with_token_advantages(method, batch).advantage_BT
    assert advantage_BT is not None
    assert_close(advantage_BT[0, 1:], tensor([2.2, 3 * 2.8]))
