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
        cap: upper bound of weights. They are clamped to it and normalised once more, so the result
            may be slightly above it.
        plain_BT: tokens that get weight 1 and are left out of the normalisation.

    Returns:
        Weights; all 1 in a degenerate rollout.
    """
    plain_BT = torch.zeros_like(among_BT) if plain_BT is None else plain_BT & among_BT
    free_BT = among_BT & ~plain_BT
    weight_BT = _normalised(raw_BT.double().clamp(min=floor), free_BT)
    if cap is not None:
        weight_BT = _normalised(weight_BT.clamp(max=cap), free_BT)
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
