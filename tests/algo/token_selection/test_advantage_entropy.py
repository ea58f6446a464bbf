"""D3S's token level: by hand, against brute force, and what it may not depend on."""

from __future__ import annotations

from dataclasses import replace
from math import floor

import pytest
import torch
from hypothesis import given
from hypothesis.strategies import floats, integers, sampled_from

from reasontrain.algo.token_selection import AdvantageEntropy, LinearSchedule, TopEntropy
from reasontrain.types import Batch, RunError


def rule(keep_ratio: float, **options: object) -> AdvantageEntropy:
    return AdvantageEntropy(keep_ratio=LinearSchedule(init=keep_ratio), **options)


def random_step(steps, seed: int) -> Batch:
    """Advantages as groups of 0/1 rewards have them, some of them zero."""
    draw = torch.Generator().manual_seed(seed)
    values = torch.tensor([-2.5, -1.0, -0.5, 0.0, 0.5, 1.0, 2.5])
    return replace(steps.random(seed), advantage_B=values[torch.randint(7, (5,), generator=draw)])


def test_by_hand(steps) -> None:
    """|A| H: rollout 0 with A = -2 has 2.0, 0.4, 0; rollout 1 with A = 0.5 has 0.75, 0.25, 0.3.

    Half of six is three.
    """
    batch = steps.of([[1, 2, 2, 2], [1, 2, 2, 2]], entropy=[[9, 1.0, 0.2, 0], [9, 1.5, 0.5, 0.6]])
    batch = replace(batch, advantage_B=torch.tensor([-2.0, 0.5]))
    assert rule(0.5)(batch).tolist() == [[0, 1, 1, 0], [0, 1, 0, 0]]
    assert rule(1.0)(batch).tolist() == [[0, 1, 1, 0], [0, 1, 1, 1]]
    assert rule(1.0, drop_zero=False)(batch).tolist() == [[0, 1, 1, 1], [0, 1, 1, 1]]
    assert rule(0.67, top_scope="rollout")(batch).tolist() == [[0, 1, 1, 0], [0, 1, 0, 1]]


@given(
    seed=integers(0, 10_000), keep_ratio=floats(0.05, 1.0), drop_zero=sampled_from([True, False])
)
def test_it_is_the_top_of_the_pool_by_brute_force(
    steps, seed: int, keep_ratio: float, drop_zero: bool
) -> None:
    batch = random_step(steps, seed)
    ranked = sorted(
        (-abs(float(batch.advantage_B[line])) * float(batch.entropy_BT[line, place]), token)
        for token, line, place in steps.tokens(batch)
    )
    num = max(1, floor(keep_ratio * len(ranked) + 1e-6)) if ranked else 0
    expected = {token for key, token in ranked[:num] if key < 0 or not drop_zero}
    assert set(steps.chosen(batch, rule(keep_ratio, drop_zero=drop_zero)(batch))) == expected


@given(
    seed=integers(0, 10_000), keep_ratio=floats(0.05, 1.0), top=sampled_from(["step", "rollout"])
)
def test_signs_do_not_matter(steps, seed: int, keep_ratio: float, top: str) -> None:
    batch = random_step(steps, seed)
    flipped = replace(batch, advantage_B=-batch.advantage_B)
    assert torch.equal(
        rule(keep_ratio, top_scope=top)(batch), rule(keep_ratio, top_scope=top)(flipped)
    )


@given(seed=integers(0, 10_000), keep_ratio=floats(0.05, 1.0))
def test_with_one_advantage_it_is_the_order_of_entropy(steps, seed: int, keep_ratio: float) -> None:
    batch = steps.random(seed)
    for advantage in (0.5, -2.0):
        same = replace(batch, advantage_B=torch.full((5,), advantage))
        assert torch.equal(
            rule(keep_ratio, drop_zero=False)(same), TopEntropy(keep_ratio=keep_ratio)(batch)
        )


def test_with_one_entropy_it_is_the_order_of_advantages(steps) -> None:
    batch = steps.of([[1, 2, 2]] * 4, entropy=[[0, 0.7, 0.7]] * 4)
    batch = replace(batch, advantage_B=torch.tensor([0.4, -2.5, 1.0, -0.9]))
    for keep_ratio, lines in ((0.25, [1]), (0.5, [1, 2]), (0.75, [1, 2, 3])):
        assert rule(keep_ratio)(batch).sum(1).nonzero()[:, 0].tolist() == lines


def test_the_budget_follows_progress(steps) -> None:
    """Of 40 tokens 10 % at the start, 50 % at the end, 30 % in the middle."""
    batch = replace(
        steps.of([[1] + [2] * 40], entropy=[[0.0] + [1.0] * 40]), advantage_B=torch.ones(1)
    )
    kept = [int(AdvantageEntropy()(replace(batch, progress=p)).sum()) for p in (0.0, 0.5, 1.0)]
    assert kept == [4, 12, 20]


@given(seed=integers(0, 10_000))
def test_a_step_without_advantages_keeps_nothing(steps, seed: int) -> None:
    assert not rule(0.5)(replace(steps.random(seed), advantage_B=torch.zeros(5))).any()


def test_entropy_that_is_not_finite_is_refused(steps) -> None:
    batch = replace(steps.of([[1, 2]], entropy=[[0, float("nan")]]), advantage_B=torch.ones(1))
    with pytest.raises(RunError, match="evidence 'entropy' is NaN or infinite at 1 of 1"):
        rule(0.5)(batch)
