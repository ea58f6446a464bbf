"""Pools of rollouts that a filter chooses from: the rollouts of one prompt or of the whole step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Float, Int

from reasontrain import rng
from reasontrain.algo._top_k import lexsort
from reasontrain.rng import Stream
from reasontrain.types import Batch

if TYPE_CHECKING:
    from torch import Tensor

Pool = Literal["group", "batch"]
EPS = 1e-4
"""Added to the standard deviation when advantages are renormalised, as PODS does."""


def pools(batch: Batch, scope: Pool) -> list[Int[Tensor, "..."]]:
    """Indices of the trainable rollouts, one tensor per pool, each in random order.

    A rollout is trainable if it has a response token. The order is drawn from (seed, step, rollout)
    and decides ties: with rewards of 0 and 1 most values are equal, and an order by index would
    favour early prompts.
    """
    index_N = batch.is_response_BT.any(1).nonzero()[:, 0]
    rollout_N = batch.rollout_B[index_N]
    pool_N = batch.group_B[index_N] if scope == "group" else torch.zeros_like(index_N)
    draw_N = rng.uniform(batch.seed, Stream.ROLLOUT_FILTER, batch.step, rollout_N)
    sizes = pool_N.unique(return_counts=True)[1].tolist()
    return list(index_N[lexsort(pool_N, draw_N, rollout_N)].split(sizes))


def has_signal(batch: Batch, pool_M: Int[Tensor, " M"], std_floor: float) -> bool:
    """True if the root mean square of the pool's advantages is at least `std_floor`, and not 0."""
    size = batch.advantage_B[pool_M].double().square().mean().sqrt()
    return bool(size >= max(std_floor, torch.finfo(torch.float32).tiny))


def take(batch: Batch, kept: list[Int[Tensor, "..."]]) -> Batch:
    """The batch with these rollouts, in their order in the batch."""
    return batch.take(torch.cat([*kept, torch.zeros(0, dtype=torch.long)]).sort().values)


def standardised(value_K: Float[Tensor, " K"]) -> Float[Tensor, " K"]:
    """(value - mean) / (std + eps) with the n - 1 standard deviation; 0 for a single value."""
    if len(value_K) < 2:
        return torch.zeros_like(value_K)
    centred_K = value_K.double() - value_K.double().mean()
    return (centred_K / (centred_K.square().sum().div(len(value_K) - 1).sqrt() + EPS)).to(
        value_K.dtype
    )
