"""The rollouts that are kept, and their advantages, by hand."""

from __future__ import annotations

from dataclasses import replace
from math import sqrt

import pytest
import torch
from hypothesis import given
from hypothesis.strategies import integers, sampled_from
from torch import Tensor, tensor
from torch.testing import assert_close

from reasontrain.algo.advantages import MeanCentred
from reasontrain.algo.keep_ratio_schedule import LinearSchedule
from reasontrain.algo.rollout_filter import Gfpo
from reasontrain.types import Batch, TokenKind


def step(rewards: list[float], lengths: list[int], group_size: int) -> Batch:
    """Rollouts of these lengths; ids from 100."""
    num = len(rewards)
    group_B, reward_B = torch.arange(num) // group_size, tensor(rewards).float()
    place_T = torch.arange(max(lengths) + 1)
    kind_BT = (place_T[None] <= tensor(lengths)[:, None]).long() * int(TokenKind.RESPONSE)
    kind_BT[:, 0] = TokenKind.PROMPT
    return Batch(
        ids_BT=torch.zeros_like(kind_BT),
        kind_BT=kind_BT,
        rollout_B=torch.arange(num) + 100,
        group_B=group_B,
        reward_B=reward_B,
        advantage_B=MeanCentred()(reward_B, group_B),
        sampled_rollouts=num,
        sampled_tokens=sum(lengths),
    )


HALF = LinearSchedule(init=0.5)
STEP = step([1, 1, 0, 0, 1, 0, 0, 0], [9, 2, 3, 8, 4, 5, 6, 1], 4)


def test_the_shortest_of_each_group_are_compared_with_each_other() -> None:
    kept = Gfpo(keep_ratio=HALF)(STEP)
    assert kept.rollout_B.tolist() == [101, 102, 104, 107]
    high = 0.5 / (sqrt(0.5) + 1e-4)  # rewards 1 and 0: mean 1/2, deviation sqrt(1/2)
    assert_close(kept.advantage_B, tensor([high, -high, high, -high]))
    assert (kept.sampled_rollouts, kept.sampled_tokens) == (8, 38)


def test_without_renormalisation_advantages_are_those_of_the_whole_group() -> None:
    kept = Gfpo(keep_ratio=HALF, renormalise=False)(STEP)
    assert kept.advantage_B.tolist() == [0.5, -0.5, 0.75, -0.25]


def test_the_most_reward_per_token() -> None:
    kept = Gfpo(keep_ratio=LinearSchedule(init=0.25), metric="reward_per_token")(STEP)
    assert kept.rollout_B.tolist() == [101, 104]  # 1/2 and 1/4
    assert kept.advantage_B.tolist() == [0, 0]  # nothing to compare one rollout with


def test_equal_rewards_teach_nothing() -> None:
    kept = Gfpo(keep_ratio=HALF)(step([1, 1, 1, 0], [1, 2, 3, 9], 4))
    assert kept.advantage_B.tolist() == [0, 0]


def test_a_masked_rollout_is_no_candidate() -> None:
    kind_BT = STEP.kind_BT.clone()
    kind_BT[1][kind_BT[1] == TokenKind.RESPONSE] = TokenKind.MASKED
    kept = Gfpo(keep_ratio=HALF)(replace(STEP, kind_BT=kind_BT))
    assert kept.rollout_B.tolist() == [102, 104, 107]  # floor(3 / 2) of the first group


@given(seed=integers(0, 1000), metric=sampled_from(["length", "reward_per_token"]))
def test_ties_go_by_the_draw_of_a_rollout_and_not_by_its_place(seed: int, metric: str) -> None:
    batch = replace(step([1.0] * 8, [3] * 8, 4), seed=seed)
    rule = Gfpo(keep_ratio=HALF, metric=metric)

    def kept(order_B: Tensor) -> set[int]:
        return set(rule(batch.take(order_B)).rollout_B.tolist())

    assert kept(torch.arange(8)) == kept(torch.arange(8).flip(0))


def test_of_equal_rollouts_each_is_kept_sometimes() -> None:
    batch = step([1.0] * 4, [3] * 4, 4)
    found = {
        i
        for s in range(20)
        for i in Gfpo(keep_ratio=HALF)(replace(batch, seed=s)).rollout_B.tolist()
    }
    assert found == {100, 101, 102, 103}


@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
def test_the_stated_share_is_kept(progress: float) -> None:
    rule = Gfpo(keep_ratio=LinearSchedule(init=0.25, final=0.75))
    kept = rule(replace(STEP, progress=progress))
    assert len(kept.rollout_B) == 8 * rule.kept_share(progress)
