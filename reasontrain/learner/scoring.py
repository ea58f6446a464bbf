"""Per-token numbers of written responses, measured on frozen models without a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from reasontrain import vocab
from reasontrain.algo.advantages import NoAdvantage
from reasontrain.data.collate import collate
from reasontrain.data.micro_batches import MicroBatch, build_micro_batch, pack_micro_batches
from reasontrain.learner.policy_module import UnshardedModel
from reasontrain.metrics.working import working
from reasontrain.models import Policy
from reasontrain.types import Rollout

Measure = Callable[[MicroBatch, Int[Tensor, " N"], Int[Tensor, " N"]], Float[Tensor, " N"]]
"""(micro-batch, flat positions that predict the tokens, the tokens' ids) -> a number per token."""


@torch.no_grad()
def measured(
    rollouts: Sequence[Rollout], measure: Measure, device: torch.device, budget_tokens: int
) -> list[list[float]]:
    """One number per response token of each rollout, in their order.

    Args:
        rollouts: prompts and responses.
        measure: returns the numbers of N tokens of a micro-batch.
        device: the device of the models that `measure` asks.
        budget_tokens: how many tokens a micro-batch holds.
    """
    # Turns inside a response that are read and not learned have a number too.
    batch = collate(
        [replace(rollout, kinds=(), loss_weight=()) for rollout in rollouts],
        advantage=NoAdvantage(),
    )
    column_BT = torch.zeros(batch.ids_BT.shape)
    with working("scoring", "tokens", int(batch.length_B.sum())) as work:
        for part in pack_micro_batches(batch.length_B, budget_tokens, "padded"):
            micro = build_micro_batch(batch, part, "padded")
            tokens = micro.tokens(batch.is_response_BT)
            ids_N = tokens.of(batch.ids_BT).to(device)
            value_N = measure(micro, tokens.logit_position_N.to(device), ids_N)
            column_BT[tokens.rollout_N, tokens.token_N] = value_N.float().cpu()
            work.done += micro.num_tokens(batch)
    return [column_BT[row, among_T].tolist() for row, among_T in enumerate(batch.is_response_BT)]


def logp(policy: Policy, rollouts: Sequence[Rollout], micro_batch_tokens: int) -> list[list[float]]:
    """log P of each response token, in nats, in float32; logits are made in chunks and none
    outlives its chunk.
    """
    model = UnshardedModel(policy)

    def measure(
        micro: MicroBatch, position_N: Int[Tensor, " N"], ids_N: Int[Tensor, " N"]
    ) -> Float[Tensor, " N"]:
        return vocab.measure(model.hidden(micro, position_N), policy.head, ids_N, ["logp"])["logp"]

    return measured(rollouts, measure, policy.device, micro_batch_tokens)
