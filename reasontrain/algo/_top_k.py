"""Exact top-k of tokens without thresholds; ties break by (rollout id, position)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int, Shaped

if TYPE_CHECKING:
    from torch import Tensor


def num_kept(keep_ratio: float, rows_G: Int[Tensor, " G"]) -> Int[Tensor, " G"]:
    """max(1, floor(keep_ratio * n)) for each group of n tokens, and 0 if n is 0.

    TIP, arXiv 2604.14084, eq. 8. A millionth is added before the floor because of binary rounding:
    0.29 * 100 is 28.999999999999996, and a keep_ratio of 0.29 means 29.
    """
    return (keep_ratio * rows_G.double() + 1e-6).floor().long().clamp(min=1).minimum(rows_G)


def num_kept_up(keep_ratio: float, rows_G: Int[Tensor, " G"]) -> Int[Tensor, " G"]:
    """ceil(keep_ratio * n) for each group of n tokens, at least 1, and 0 if n is 0.

    ssToken, arXiv 2510.18250, section 2.3. A billionth is subtracted before the ceiling because of
    binary rounding: 0.07 * 100 is 7.000000000000001, and a keep_ratio of 0.07 means 7.
    """
    return (keep_ratio * rows_G.double() - 1e-9).ceil().long().clamp(min=1).minimum(rows_G)


def top_rows(
    score_BT: Float[Tensor, "B T"],
    among_BT: Bool[Tensor, "B T"],
    num: int,
    order_BT: Int[Tensor, "B T"],
    then_BT: Float[Tensor, "B T"] | None = None,
) -> Float[Tensor, "B T"]:
    """Weight 1 at the `num` highest-scored tokens of the step (or all if fewer), 0 elsewhere.

    Args:
        score_BT: scores; higher is better.
        among_BT: candidates.
        num: number of tokens to keep.
        order_BT: key that breaks ties (see `Batch.token_order_BT`).
        then_BT: scores that break ties before it.

    Returns:
        Token weights, 0 or 1.
    """
    score_N = score_BT[among_BT]
    order_N = order_BT[among_BT]
    num_G = torch.tensor([num], device=order_N.device)
    then_N = torch.zeros_like(score_N) if then_BT is None else then_BT[among_BT]
    return _weights(_is_top(score_N, torch.zeros_like(order_N), num_G, order_N, then_N), among_BT)


def top_rows_per_rollout(
    score_BT: Float[Tensor, "B T"],
    among_BT: Bool[Tensor, "B T"],
    num_B: Int[Tensor, " B"],
    order_BT: Int[Tensor, "B T"],
    then_BT: Float[Tensor, "B T"] | None = None,
) -> Float[Tensor, "B T"]:
    """Weight 1 at the highest-scored tokens of each rollout (all if there are fewer), 0 elsewhere.

    Args:
        score_BT: scores; higher is better.
        among_BT: candidates.
        num_B: number of tokens to keep in each rollout.
        order_BT: key that breaks ties (see `Batch.token_order_BT`).
        then_BT: scores that break ties before it.

    Returns:
        Token weights, 0 or 1.
    """
    rollout_N = among_BT.nonzero()[:, 0]
    score_N = score_BT[among_BT]
    then_N = torch.zeros_like(score_N) if then_BT is None else then_BT[among_BT]
    return _weights(_is_top(score_N, rollout_N, num_B, order_BT[among_BT], then_N), among_BT)


def lexsort(*keys_N: Shaped[Tensor, " N"]) -> Int[Tensor, " N"]:
    """Indices that sort by the first key, with ties broken by the second, and so on."""
    index_N = torch.arange(len(keys_N[0]), device=keys_N[0].device)
    for key_N in reversed(keys_N):
        index_N = index_N[key_N[index_N].argsort(stable=True)]
    return index_N


def _is_top(
    score_N: Float[Tensor, " N"],
    group_N: Int[Tensor, " N"],
    num_G: Int[Tensor, " G"],
    order_N: Int[Tensor, " N"],
    then_N: Float[Tensor, " N"],
) -> Bool[Tensor, " N"]:
    """True at the first `num_G[g]` tokens of each group g, sorted by (-score, -then, order)."""
    assert not score_N.isnan().any(), "a score is NaN: the rule should have refused its evidence"
    best_N = lexsort(group_N, -score_N, -then_N, order_N)
    size_G = group_N.bincount(minlength=len(num_G))
    first_G = size_G.cumsum(0) - size_G
    rank_N = torch.empty_like(best_N)
    rank_N[best_N] = torch.arange(len(best_N), device=best_N.device) - first_G[group_N[best_N]]
    return rank_N < num_G[group_N]


def _weights(kept_N: Bool[Tensor, " N"], among_BT: Bool[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    """Weights [B, T] from one decision per candidate token."""
    weight_BT = torch.zeros_like(among_BT, dtype=torch.float32)
    weight_BT[among_BT] = kept_N.float()
    return weight_BT
