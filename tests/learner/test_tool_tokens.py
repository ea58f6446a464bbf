"""Tokens that an environment wrote: read by the model, and in no loss, denominator or ratio."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from reasontrain.algo.advantages import NoAdvantage
from reasontrain.algo.loss_aggregation import LOSS_AGGREGATIONS, LossAggregation
from reasontrain.algo.objectives import Grpo
from reasontrain.data.collate import collate
from reasontrain.learner.factory import compose_learner
from reasontrain.recipe import LearnSettings
from reasontrain.types import Problem, Rollout, TokenKind
from tests.tiny import policy

R, T = int(TokenKind.RESPONSE), int(TokenKind.TOOL)
KINDS = ((R, R, T, T, R), (R, T, R, R), (R, R, R))
ADVANTAGES = torch.tensor([1.0, -0.5, 2.0])


def rollouts(tool_logp: float) -> list[Rollout]:
    draw = torch.Generator().manual_seed(3)
    return [
        Rollout(
            problem=Problem(id=str(index), prompt=""),
            id=index,
            group=index,
            prompt_ids=(7, 8, 9)[: index + 1],
            response_ids=tuple(torch.randint(3, 500, (len(kinds),), generator=draw).tolist()),
            sampled_logp=tuple(-5.0 if kind == R else tool_logp for kind in kinds),
            kinds=kinds,
        )
        for index, kinds in enumerate(KINDS)
    ]


def learned(
    aggregation: LossAggregation, tool_logp: float, layout: str = "padded"
) -> tuple[float, dict[str, torch.Tensor]]:
    model = policy()
    settings = LearnSettings(lr=0.1, rollouts_per_step=3, layout=layout)  # type: ignore[arg-type]
    learner = compose_learner(model, settings, steps=1)
    batch = collate(rollouts(tool_logp), advantage=NoAdvantage())
    batch = replace(batch, advantage_B=ADVANTAGES)
    batch = batch.with_evidence({"old_logp": batch.sampled_logp_BT})
    weight_BT = batch.is_response_BT.float()
    objective = Grpo(clip_low=0.9, clip_high=1e6)
    stats = learner.gradient(batch, weight_BT, objective, LOSS_AGGREGATIONS[aggregation])
    grads = {n: p.grad for n, p in model.model.named_parameters() if p.grad is not None}
    return stats["loss"], grads


@pytest.mark.parametrize("layout", ["padded", "packed"])
@pytest.mark.parametrize("aggregation", ["token_mean", "seq_mean_token_mean"])
def test_loss_and_gradient_are_those_of_a_mask_by_hand(
    aggregation: LossAggregation, layout: str
) -> None:
    """-A exp(logp - old) of the sampled tokens alone, 9 of 12; whatever the tool's log-prob is."""
    loss, grads = learned(aggregation, 0.0, layout)
    model = policy()
    total = torch.zeros(())
    for rollout, advantage in zip(rollouts(0.0), ADVANTAGES, strict=True):
        ids = torch.tensor([[*rollout.prompt_ids, *rollout.response_ids]])
        logits = model.model(input_ids=ids, use_cache=False).logits[0, :-1]
        logp_T = logits.log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]
        own_T = torch.tensor(rollout.kinds) == R
        losses = -advantage * (logp_T[-len(own_T) :][own_T] + 5.0).exp()
        total = total + (
            losses.sum() / 9 if aggregation == "token_mean" else losses.mean() / len(KINDS)
        )
    total.backward()
    assert loss == pytest.approx(float(total.detach()), rel=1e-5)
    for name, parameter in model.model.named_parameters():
        if parameter.grad is not None:
            assert_close(grads[name], parameter.grad, rtol=1e-4, atol=1e-6)
    other_loss, other = learned(aggregation, 50.0, layout)
    assert other_loss == loss
    assert all(torch.equal(grads[name], other[name]) for name in grads)


def test_tool_tokens_are_not_sampled_tokens() -> None:
    batch = collate(rollouts(0.0), advantage=NoAdvantage())
    assert (batch.sampled_tokens, batch.totals().response_tokens) == (9, 9)
