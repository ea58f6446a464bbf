"""Numbers of written responses, token by token, from frozen models and without a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from reasontrain import vocab
from reasontrain.algo.advantages import NoAdvantage
from reasontrain.data.collate import collate
from reasontrain.data.micro_batches import MicroBatch, build, pack_micro_batches
from reasontrain.learner.policy_module import UnshardedModel
from reasontrain.models import Policy
from reasontrain.types import Rollout

Measure = Callable[[MicroBatch, Int[Tensor, " N"], Int[Tensor, " N"]], Float[Tensor, " N"]]
"""(micro-batch, flat rows that predict the tokens, the tokens' ids) -> a number for each token."""


@torch.no_grad()
def measured(
    rollouts: Sequence[Rollout], measure: Measure, device: torch.device, budget_tokens: int
) -> list[list[float]]:
    """One number per response token of each rollout, in their order; the longest are measured
    together, prompts are not.
    """
    batch = collate(rollouts, advantage=NoAdvantage())
    column_BT = torch.zeros(batch.ids_BT.shape)
    for part in pack_micro_batches(batch.length_B, budget_tokens, "padded"):
        micro = build(batch, part, "padded")
        local_N, token_N = batch.is_response_BT[micro.index_K].nonzero(as_tuple=True)
        rollout_N = micro.index_K[local_N]
        ids_N = batch.ids_BT[rollout_N, token_N].to(device)
        value_N = measure(micro, micro.logit_positions(local_N, token_N).to(device), ids_N)
        column_BT[rollout_N, token_N] = value_N.float().cpu()
    return [column_BT[row, among_T].tolist() for row, among_T in enumerate(batch.is_response_BT)]


def logp(policy: Policy, rollouts: Sequence[Rollout], micro_batch_tokens: int) -> list[list[float]]:
    """log P of each response token, in nats, in float32; logits are made in chunks and none
    outlives its chunk.
    """
    model = UnshardedModel(policy)

    def measure(
        micro: MicroBatch, row_N: Int[Tensor, " N"], ids_N: Int[Tensor, " N"]
    ) -> Float[Tensor, " N"]:
        return vocab.measure(model.hidden(micro, row_N), policy.head, ids_N, ["logp"])["logp"]

    return measured(rollouts, measure, policy.device, micro_batch_tokens)
