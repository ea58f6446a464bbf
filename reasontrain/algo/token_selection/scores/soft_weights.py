"""Fractional weights of rules that weigh every token and drop none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float

if TYPE_CHECKING:
    from torch import Tensor


def soft_weights(
    weight_BT: Float[Tensor, "B T"], among_BT: Bool[Tensor, "B T"]
) -> Float[Tensor, "B T"]:
    """The weights in float32 inside the mask, and 0 outside.

    Inside, a weight is at least the smallest normal float32. At 0 a token would leave the
    denominators of the loss, which count the tokens that have a weight.
    """
    least = torch.finfo(torch.float32).tiny
    return torch.where(among_BT, weight_BT.detach().float().clamp(min=least), 0.0)


def mean_one(
    weight_BT: Float[Tensor, "B T"], among_BT: Bool[Tensor, "B T"]
) -> Float[Tensor, "B T"]:
    """The weights divided by their mean over the mask, in float64; zeros if the mean is 0."""
    # Sorted, so that the sum has one order of summation in every layout of the step.
    weight_N = weight_BT[among_BT].double().sort().values
    total = weight_N.sum()
    if not len(weight_N) or total == 0:
        return torch.zeros_like(weight_BT, dtype=torch.float64)
    return weight_BT.double() * (len(weight_N) / total)
