"""Rollouts become columns, right-padded; column t belongs to token t."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from reasontrain.algo.advantages import GroupNormalized, MeanCentred, NoAdvantage
from reasontrain.algo.loss_aggregation import LOSS_AGGREGATIONS, LossAggregation
from reasontrain.algo.objectives import Nll
from reasontrain.data.collate import collate
from reasontrain.run.loop import Method, token_weights
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


def weighted_rollouts(*weights: float) -> list[Rollout]:
    """Two rollouts of three response tokens; the weights are of the second."""
    plain = [rollout(0, 2, 3, logp=None), rollout(1, 1, 3, logp=None)]
    return [plain[0], replace(plain[1], loss_weight=tuple(map(float, weights)))]


@pytest.mark.parametrize("name", LOSS_AGGREGATIONS)
def test_a_loss_weight_scales_a_token_and_no_total(name: LossAggregation) -> None:
    """1 is none, bit for bit; 0 is a masked token; 0.5 halves the token's part of the loss."""

    def loss_weights(rollouts: list[Rollout]) -> torch.Tensor:
        batch = collate(rollouts, advantage=NoAdvantage(), paired=name == "pair_mean")
        weight_BT = token_weights(
            Method(objective=Nll(), loss_aggregation=LOSS_AGGREGATIONS[name]), batch
        )
        return LOSS_AGGREGATIONS[name](weight_BT, batch.totals(weight_BT))

    plain = loss_weights(weighted_rollouts())
    assert torch.equal(loss_weights(weighted_rollouts(1, 1, 1)), plain)
    half = loss_weights(weighted_rollouts(1, 0.5, 1))
    factor = torch.ones_like(plain)
    factor[1, 2] = 0.5
    assert torch.equal(half, plain * factor)
    masked = weighted_rollouts()
    kinds = (int(TokenKind.RESPONSE), int(TokenKind.MASKED), int(TokenKind.RESPONSE))
    masked[1] = replace(masked[1], kinds=kinds)
    assert torch.equal(loss_weights(weighted_rollouts(1, 0, 1)), loss_weights(masked))


def test_a_batch_of_a_part_of_the_rollouts_keeps_their_loss_weights() -> None:
    batch = collate(weighted_rollouts(1, 0.5, 0), advantage=NoAdvantage())
    assert batch.loss_weight_BT is not None
    assert batch.loss_weight_BT.tolist() == [[1, 1, 1, 1, 1], [1, 1, 0.5, 0, 0]]
    assert batch.kind_BT[1].tolist() == [1, 2, 2, int(TokenKind.MASKED), 0]
    part = batch.take(torch.tensor([1])).loss_weight_BT
    assert part is not None
    assert part.tolist() == [[1, 1, 0.5, 0, 0]]
    assert collate(weighted_rollouts(), advantage=NoAdvantage()).loss_weight_BT is None


def test_turns_that_are_read_count_in_no_total() -> None:
    """A turn of a user and one of a tool inside a response."""
    kinds = tuple(
        map(int, (TokenKind.RESPONSE, TokenKind.PROMPT, TokenKind.TOOL, TokenKind.RESPONSE))
    )
    batch = collate([replace(rollout(0, 1, 4, logp=None), kinds=kinds)], advantage=NoAdvantage())
    assert (batch.totals().response_tokens, batch.sampled_tokens) == (2, 2)


def test_demonstrations_have_no_sampled_log_probs() -> None:
    batch = collate([rollout(0, 1, 2, logp=None)], advantage=NoAdvantage())
    with pytest.raises(LookupError, match="evidence 'sampled_logp' was not observed"):
        _ = batch.sampled_logp_BT


def test_no_rollout_is_a_batch_too() -> None:
    batch = collate([], advantage=NoAdvantage())
    assert batch.totals(torch.zeros(0, 1)).rollouts == 0
