"""Rollouts become columns, right-padded; column t belongs to token t."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from reasontrain.algo.advantages import GroupNormalized, MeanCentred, NoAdvantage
from reasontrain.data.collate import collate
from reasontrain.types import Problem, Rollout, TokenKind


def rollout(
    id: int, prompt: int, response: int, *, reward: float = 0.0, logp: float | None = -1.0
) -> Rollout:
    ids = range(100 * id, 100 * id + prompt + response)
    sampled = () if logp is None else tuple(logp - i for i in range(response))
    return Rollout(
        problem=Problem(id=str(id), prompt=""),
        id=id,
        group=id // 2 * 2,
        prompt_ids=tuple(ids[:prompt]),
        response_ids=tuple(ids[prompt:]),
        sampled_logp=sampled,
        reward=reward,
    )


def test_small_differences_of_large_rewards_survive() -> None:
    """1e6 + (.02, 0, .01, -.03): std sqrt(14e-4 / 3) = .0216, + 1e-4; float32 has steps of .06."""
    rewards = [1e6 + part for part in (0.02, 0.0, 0.01, -0.03)]
    rollouts = [
        replace(rollout(i, 1, 1, reward=reward), group=0) for i, reward in enumerate(rewards)
    ]
    batch = collate(rollouts, advantage=GroupNormalized())
    assert batch.advantage_B.tolist() == pytest.approx([0.9216, 0, 0.4608, -1.3824], abs=1e-3)
    assert batch.advantage_B.dtype == batch.reward_B.dtype == torch.float32


def test_verdicts_are_there_if_every_rollout_has_one() -> None:
    right, wrong = (replace(rollout(i, 1, 1), correct=i == 2) for i in (2, 3))
    batch = collate([right, wrong], advantage=NoAdvantage())
    assert batch.correct_B is not None
    assert batch.correct_B.tolist() == [True, False]
    assert batch.take(torch.tensor([1])).correct_B.tolist() == [False]
    assert collate([right, rollout(3, 1, 1)], advantage=NoAdvantage()).correct_B is None


def test_columns_by_hand() -> None:
    batch = collate(
        [rollout(2, 1, 2, reward=1.0), rollout(3, 2, 3)],
        advantage=MeanCentred(),
        progress=0.5,
        seed=7,
        step=3,
    )
    assert batch.ids_BT.tolist() == [[200, 201, 202, 0, 0], [300, 301, 302, 303, 304]]
    assert batch.kind_BT.tolist() == [[1, 2, 2, 0, 0], [1, 1, 2, 2, 2]]
    assert batch.sampled_logp_BT.tolist() == [[0, -1, -2, 0, 0], [0, 0, -1, -2, -3]]
    assert (batch.rollout_B.tolist(), batch.group_B.tolist()) == ([2, 3], [2, 2])
    assert (batch.reward_B.tolist(), batch.advantage_B.tolist()) == ([1.0, 0.0], [0.5, -0.5])
    assert (
        batch.sampled_rollouts,
        batch.sampled_tokens,
        batch.progress,
        batch.seed,
        batch.step,
    ) == (2, 5, 0.5, 7, 3)


def test_a_masked_rollout_earns_credit_and_has_no_row_to_train_on() -> None:
    batch = collate(
        [rollout(2, 1, 2, reward=1.0), rollout(3, 2, 3)],
        advantage=MeanCentred(),
        masked=frozenset({2}),
    )
    assert batch.kind_BT[0].tolist() == [1, int(TokenKind.MASKED), int(TokenKind.MASKED), 0, 0]
    assert batch.advantage_B.tolist() == [0.5, -0.5]
    assert batch.is_response_BT.sum(1).tolist() == [0, 3]
    assert batch.length_B.tolist() == [3, 5]


def test_demonstrations_have_no_sampled_log_probs() -> None:
    batch = collate([rollout(0, 1, 2, logp=None)], advantage=NoAdvantage())
    with pytest.raises(LookupError, match="evidence 'sampled_logp' was not observed"):
        _ = batch.sampled_logp_BT


def test_no_rollout_is_a_batch_too() -> None:
    batch = collate([], advantage=NoAdvantage())
    assert batch.totals(torch.zeros(0, 1)).rollouts == 0
