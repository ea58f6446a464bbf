"""Normalisation of raw weights: the weights of a rollout's k tokens sum to k."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float

if TYPE_CHECKING:
    from torch import Tensor

LEAST_MEAN = 1e-6
"""A rollout whose raw weights average less than this has nothing to tell its tokens apart by."""


def spread(
    raw_BT: Float[Tensor, "B T"],
    among_BT: Bool[Tensor, "B T"],
    *,
    floor: float = 0.0,
    cap: float | None = None,
    plain_BT: Bool[Tensor, "B T"] | None = None,
) -> Float[Tensor, "B T"]:
    """k w / sum(w) over the k chosen tokens of each rollout, in float64 (PRIOR, arXiv 2505.08971).

    Args:
        raw_BT: raw weights w, not negative.
        among_BT: the chosen tokens; others get 0.
        floor: least raw weight, applied first.
        cap: greatest weight. Weights are cut to it and the rollout is normalised once more, so
            that a weight may end slightly above it.
        plain_BT: tokens whose weight is 1, apart from the normalisation.

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
    """Rollouts whose weights sum to less than a millionth of their tokens; never an empty one."""
    total_B = torch.where(among_BT, raw_BT.double(), 0.0).sum(1)
    return total_B < LEAST_MEAN * among_BT.sum(1)


def _normalised(
    weight_BT: Float[Tensor, "B T"], among_BT: Bool[Tensor, "B T"]
) -> Float[Tensor, "B T"]:
    """Weights that average 1 over the chosen tokens of each rollout."""
    weight_BT = torch.where(degenerate(weight_BT, among_BT)[:, None], 1.0, weight_BT)
    weight_BT = torch.where(among_BT, weight_BT, 0.0)
    total_B1 = weight_BT.sum(1, keepdim=True)
    return weight_BT * among_BT.sum(1, keepdim=True) / torch.where(total_B1 > 0, total_B1, 1.0)
