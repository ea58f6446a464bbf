"""Losses of a micro-batch: an objective and fixed loss weights become a computation on the head.

A computation runs inside the forward of the policy, on hidden states [N, D] and the head, and
returns the sum of loss_weight x loss, how many losses there were, and sums of the objective's
statistics over them.

What comes from the host is copied without waiting for the device: memory that is not pinned may be
changed or freed as soon as such a copy returns.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from reasontrain import vocab
from reasontrain.algo.objectives import SequenceObjective, TokenObjective
from reasontrain.data.micro_batches import MicroBatchTokens
from reasontrain.learner.policy_module import HeadComputation
from reasontrain.types import Batch, SequenceStats, TokenFields

LOSS = "loss"
NUM_LOSSES = "number of losses"


def token_loss(
    fields: TokenFields,
    loss_weight_N: Float[Tensor, " N"],
    objective: TokenObjective,
    *,
    temperature: float,
    teacher: vocab.AnyTeacher | None,
) -> HeadComputation:
    """The loss of N tokens, each a function of its own distribution.

    Args:
        fields: what the objective reads of each token.
        loss_weight_N: the factor of each loss in the step's sum.
        objective: one loss per token.
        temperature: divides the logits.
        teacher: the teacher at the same tokens, if the objective compares.
    """

    def compute(hidden_ND: Float[Tensor, "N D"], head: vocab.Head) -> Mapping[str, Tensor]:
        device = hidden_ND.device
        result = vocab.fused(
            hidden_ND,
            head,
            fields.to(device),
            loss_weight_N.to(device, non_blocking=True),
            objective,
            temperature=temperature,
            teacher=teacher,
        )
        # Filled on the device: a tensor made of a number is a copy that the host waits for.
        number = torch.full((), len(loss_weight_N), device=device)
        return {LOSS: result.loss, NUM_LOSSES: number, **result.stats}

    return compute


def sequence_loss(
    batch: Batch,
    tokens: MicroBatchTokens,
    weight_BT: Float[Tensor, "B T"],
    loss_weight_BT: Float[Tensor, "B T"],
    objective: SequenceObjective,
    *,
    temperature: float,
) -> HeadComputation:
    """The loss of whole responses, whose non-linearity comes after a sum over each of them.

    Args:
        batch: the rollouts of the step.
        tokens: all response tokens of the micro-batch's rollouts.
        weight_BT: the selection's weight of each token.
        loss_weight_BT: the factor of each loss in the step's sum; that of a pair stands at every
            token of both sides.
        objective: one loss per token or per pair.
        temperature: divides the logits.
    """
    fields = tokens.fields(batch)
    index_K = tokens.micro_batch.index_K
    if objective.granularity == "token":
        loss_weight = tokens.of(loss_weight_BT)
    else:
        loss_weight = loss_weight_BT[index_K[::2]].amax(1)  # of the chosen side

    def compute(hidden_ND: Float[Tensor, "N D"], head: vocab.Head) -> Mapping[str, Tensor]:
        device = hidden_ND.device
        sequences = SequenceStats(
            logp_N=vocab.logp(
                hidden_ND, head, fields.ids_N.to(device, non_blocking=True), temperature=temperature
            ),
            weight_N=tokens.of(weight_BT).to(device, non_blocking=True),
            rollout_N=tokens.local_N.to(device, non_blocking=True),
            token_N=tokens.token_N.to(device, non_blocking=True),
            num_rollouts=len(index_K),
            columns=fields.to(device),
        )
        losses = objective(sequences)
        factor = loss_weight.to(device, non_blocking=True)
        counts = factor != 0  # where, not a product: 0 x inf would be NaN
        stats = {
            name: torch.where(counts, value.detach().to(factor), 0).sum()
            for name, value in losses.stats.items()
        }
        loss = torch.where(counts, factor * losses.loss, 0).sum()
        return {LOSS: loss, NUM_LOSSES: counts.sum(), **stats}

    return compute
