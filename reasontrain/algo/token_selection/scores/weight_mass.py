"""Normalisation of raw weights: the weights of a rollout's k tokens sum to k."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float

if TYPE_CHECKING:
    from torch import Tensor

LEAST_MEAN = 1e-6
"""A rollout whose mean raw weight is below this is degenerate: it gets uniform weights."""


def spread(
    raw_BT: Float[Tensor, "B T"],
    among_BT: Bool[Tensor, "B T"],
    *,
    floor: float = 0.0,
    cap: float | None = None,
    plain_BT: Bool[Tensor, "B T"] | None = None,
) -> Float[Tensor, "B T"]:
    """k w / sum(w) over the k tokens of the mask in each rollout, in float64.

    PRIOR, arXiv 2505.08971.

    Args:
        raw_BT: raw weights w, not negative.
        among_BT: mask of the tokens; others get 0.
        floor: lower bound of raw weights, applied first.
        cap: upper bound of weights, at least 1; the mass above it goes to the other tokens in
            proportion to their weights.
        plain_BT: tokens that get weight 1 and are left out of the normalisation.

    Returns:
        Weights; all 1 in a degenerate rollout.
    """
    plain_BT = torch.zeros_like(among_BT) if plain_BT is None else plain_BT & among_BT
    free_BT = among_BT & ~plain_BT
    weight_BT = _normalised(raw_BT.double().clamp(min=floor), free_BT)
    if cap is not None:
        weight_BT = _capped(weight_BT, free_BT, cap)
    return torch.where(plain_BT, 1.0, weight_BT)


def degenerate(raw_BT: Float[Tensor, "B T"], among_BT: Bool[Tensor, "B T"]) -> Bool[Tensor, " B"]:
    """Rollouts with a mean weight below a millionth; never a rollout without tokens."""
    total_B = torch.where(among_BT, raw_BT.double(), 0.0).sum(1)
    return total_B < LEAST_MEAN * among_BT.sum(1)


def _normalised(
    weight_BT: Float[Tensor, "B T"], among_BT: Bool[Tensor, "B T"]
) -> Float[Tensor, "B T"]:
    """Weights scaled to mean 1 over the tokens of the mask in each rollout."""
    weight_BT = torch.where(degenerate(weight_BT, among_BT)[:, None], 1.0, weight_BT)
    weight_BT = torch.where(among_BT, weight_BT, 0.0)
    total_B1 = weight_BT.sum(1, keepdim=True)
    return weight_BT * among_BT.sum(1, keepdim=True) / torch.where(total_B1 > 0, total_B1, 1.0)


def _capped(
    weight_BT: Float[Tensor, "B T"], among_BT: Bool[Tensor, "B T"], cap: float
) -> Float[Tensor, "B T"]:
    """Normalised weights, of which none is above `cap` and the sum is still k, by water-filling.

    Weights above the cap are set to it, and the others share what is left in proportion, or equally
    if all are 0. That may raise another one above the cap, so it is repeated until none is. A
    rollout's k tokens can hold k for every cap >= 1.
    """
    assert cap >= 1, "below 1 the weights of k tokens cannot sum to k"
    num_B1 = among_BT.sum(1, keepdim=True)
    full_BT = torch.zeros_like(among_BT)
    filled_BT = weight_BT
    while (above_BT := among_BT & ~full_BT & (filled_BT > cap)).any():
        full_BT = full_BT | above_BT
        open_BT = among_BT & ~full_BT
        left_B1 = num_B1 - cap * full_BT.sum(1, keepdim=True)
        open_weight_BT = torch.where(open_BT, weight_BT, 0.0)
        total_B1 = open_weight_BT.sum(1, keepdim=True)
        share_BT = torch.where(
            total_B1 > 0,
            open_weight_BT / torch.where(total_B1 > 0, total_B1, 1.0),
            open_BT / open_BT.sum(1, keepdim=True).clamp(min=1),
        )
        filled_BT = torch.where(full_BT, cap, left_B1 * share_BT)
    return torch.where(among_BT, filled_BT, 0.0)
