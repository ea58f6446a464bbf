"""The controls keep as much as what they control, and choose without looking."""

from __future__ import annotations

from dataclasses import replace

import torch
from hypothesis import given, settings
from hypothesis.strategies import integers

from reasontrain.algo._top_k import num_kept
from reasontrain.algo.token_selection import Random, ShuffledWeights, Tip, TopEntropy


@given(seed=integers(0, 10_000), percent=integers(1, 100))
@settings(max_examples=30, deadline=None)
def test_random_keeps_as_many_of_each_rollout_as_tip(steps, seed, percent):
    batch = steps.random(seed)
    random_B = Random(keep_ratio=percent / 100)(batch).sum(1)
    assert random_B.tolist() == Tip(keep_ratio=percent / 100)(batch).sum(1).tolist()
    assert random_B.tolist() == num_kept(percent / 100, batch.is_response_BT.sum(1)).tolist()


@given(seed=integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_shuffling_keeps_the_mass_of_every_rollout(steps, seed):
    batch = steps.random(seed)
    for rule in (TopEntropy(keep_ratio=0.3), Tip(keep_ratio=0.3)):
        assert ShuffledWeights(of=rule)(batch).sum(1).tolist() == rule(batch).sum(1).tolist()


def test_shuffling_permutes_fractional_weights_too(steps, monkeypatch):
    batch = steps.of([[1, 2, 2, 3, 2, 2, 2, 0]])
    monkeypatch.setattr(
        Random,
        "__call__",
        lambda rule, batch: torch.tensor([[0.0, 0.1, 0.2, 0.0, 0.3, 0.4, 0.5, 0.0]]),
    )
    weight_BT = ShuffledWeights(of=Random())(batch)
    assert (
        sorted(steps.chosen(batch, weight_BT).values())
        == torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5]).tolist()
    )
    assert weight_BT.tolist() != Random()(batch).tolist()  # of 120 orders, this seed gives another


def inclusion(steps, rule, entropy: list[float], num_rollouts: int = 4000) -> torch.Tensor:
    """How often each position is kept, over many rollouts that are alike."""
    width = len(entropy)
    batch = steps.of([[2] * width] * num_rollouts, entropy=[entropy] * num_rollouts)
    return rule(batch).mean(0)


def test_random_and_shuffled_keep_every_position_equally_often(steps):
    # binomial(4000, 3/6): one standard deviation is 0.0079, five are 0.04
    for rule in (
        Random(keep_ratio=0.5),
        ShuffledWeights(of=Tip(mode="entropy_topk", keep_ratio=0.5)),
    ):
        torch.testing.assert_close(
            inclusion(steps, rule, [6.0, 5.0, 4.0, 3.0, 2.0, 1.0]),
            torch.full((6,), 0.5),
            rtol=0,
            atol=0.04,
        )


def test_controls_draw_anew_each_step_and_each_independently(steps):
    batch = steps.of([[2] * 200], entropy=[[float(i) for i in range(200)]])
    rules = (
        Random(keep_ratio=0.5),
        ShuffledWeights(of=TopEntropy(keep_ratio=0.5)),
        ShuffledWeights(of=Random(keep_ratio=0.5)),
    )
    kept = [rule(at)[0].bool() for rule in rules for at in (batch, replace(batch, step=4))]
    for i, one in enumerate(kept):
        for other in kept[:i]:  # two independent halves of 200 agree on 50 +- 3.5 (hypergeometric)
            assert abs(int((one & other).sum()) - 50) < 18
