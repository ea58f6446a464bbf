"""Per-token numbers of written responses, measured on frozen models without a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from reasontrain import vocab
from reasontrain.algo.advantages import NoAdvantage
from reasontrain.data.collate import collate
from reasontrain.data.micro_batches import (
    MicroBatch,
    MicroBatchTokens,
    build_micro_batch,
    pack_micro_batches,
)
from reasontrain.data.stored_top_k import TopKTokens
from reasontrain.learner.policy_module import UnshardedModel
from reasontrain.metrics.working import working
from reasontrain.models import Policy
from reasontrain.types import Batch, Rollout

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
    batch = _collated(rollouts)
    column_BT = torch.zeros(batch.ids_BT.shape)
    for tokens in _response_tokens(batch, budget_tokens):
        ids_N = tokens.of(batch.ids_BT).to(device)
        value_N = measure(tokens.micro_batch, tokens.logit_position_N.to(device), ids_N)
        column_BT[tokens.rollout_N, tokens.token_N] = value_N.float().cpu()
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


@torch.no_grad()
def top_k(
    policy: Policy, rollouts: Sequence[Rollout], num: int | None, micro_batch_tokens: int
) -> list[TopKTokens]:
    """The model's likeliest ids at each response token of each rollout, in their order.

    Args:
        policy: the model.
        rollouts: prompts and responses.
        num: number of ids at each token; None for all.
        micro_batch_tokens: how many tokens a micro-batch holds.
    """
    model = UnshardedModel(policy)
    batch = _collated(rollouts)
    head = policy.head
    nothing = TopKTokens(torch.zeros(0, 1, dtype=torch.long), torch.zeros(0, 1), torch.zeros(0))
    scored = [nothing] * len(rollouts)
    for tokens in _response_tokens(batch, micro_batch_tokens):
        hidden_ND = model.hidden(tokens.micro_batch, tokens.logit_position_N)
        likeliest = vocab.top_k(hidden_ND, head, num or head.width).to(torch.device("cpu"))
        for local, index in enumerate(tokens.micro_batch.index_K.tolist()):
            own_N = tokens.local_N == local
            if own_N.any():
                own = likeliest[own_N]
                scored[index] = TopKTokens(own.ids_NK, own.logq_NK, own.log_rest_N)
    return scored


def _collated(rollouts: Sequence[Rollout]) -> Batch:
    """A batch in which turns inside a response that are read and not learned count too."""
    return collate(
        [replace(rollout, kinds=(), loss_weight=()) for rollout in rollouts],
        advantage=NoAdvantage(),
    )


def _response_tokens(batch: Batch, budget_tokens: int) -> Iterator[MicroBatchTokens]:
    """All response tokens of a batch, micro-batch by micro-batch, with a progress bar."""
    with working("scoring", "tokens", int(batch.length_B.sum())) as work:
        for part in pack_micro_batches(batch.length_B, budget_tokens, "padded"):
            micro = build_micro_batch(batch, part, "padded")
            yield micro.tokens(batch.is_response_BT)
            work.done += micro.num_tokens(batch)
