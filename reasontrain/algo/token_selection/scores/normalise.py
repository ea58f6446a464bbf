"""Normalisation of evidence to [0, 1]: clip at quantiles, then min-max."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Bool, Float

from reasontrain.types import RunError

if TYPE_CHECKING:
    from torch import Tensor

Scope = Literal["step", "rollout"]
"""Scope of a statistic or a ranking: all tokens of the step, or each rollout by itself."""


@dataclass(frozen=True, kw_only=True)
class Span:
    """The values that are mapped to 0 and 1: one pair for a step (S = 1) or per rollout (S = B)."""

    low_S1: Float[Tensor, "S 1"]
    high_S1: Float[Tensor, "S 1"]

    def normalise(self, value_BT: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        """(value - low) / (high - low), clipped to [0, 1]; 0 where high = low.

        Float64, dimensionless.
        """
        width_S1 = self.high_S1 - self.low_S1
        share_BT = (value_BT.double() - self.low_S1) / torch.where(width_S1 > 0, width_S1, 1.0)
        return torch.where(width_S1 > 0, share_BT.clamp(0.0, 1.0), 0.0)


def span_of(
    value_BT: Float[Tensor, "B T"],
    among_BT: Bool[Tensor, "B T"],
    *,
    clip_quantile: float = 1.0,
    low_quantile: float = 0.0,
    scope: Scope = "step",
) -> Span:
    """Two quantiles of the values inside the mask (TIP, arXiv 2604.14084, section 6).

    Both are order statistics, not sums, so the same tokens give a bit-identical span in any layout.

    Args:
        value_BT: evidence, in its own unit.
        among_BT: mask of the tokens.
        clip_quantile: quantile that is mapped to 1; 1.0 is the maximum.
        low_quantile: quantile that is mapped to 0; 0.0 is the minimum.
        scope: one span for the step, or one per rollout.

    Returns:
        The span, in float64 and in the unit of the evidence.
    """
    if scope == "step":
        value_BT = value_BT.reshape(1, -1)
        among_BT = among_BT.reshape(1, -1)
    if not value_BT.numel():  # a step whose rollouts were all dropped
        nothing_S1 = torch.zeros(len(value_BT), 1, dtype=torch.float64)
        return Span(low_S1=nothing_S1, high_S1=nothing_S1)
    low_S1 = quantile(value_BT, among_BT, low_quantile)[:, None]
    high_S1 = quantile(value_BT, among_BT, clip_quantile)[:, None]
    return Span(low_S1=low_S1, high_S1=high_S1)


def quantile(
    value_BT: Float[Tensor, "B T"], among_BT: Bool[Tensor, "B T"], share: float
) -> Float[Tensor, " B"]:
    """Quantile of the values inside the mask in each rollout, interpolated linearly as in numpy.

    0 if the mask is empty. torch.quantile takes no mask and is limited to 2^24 numbers.
    """
    if not value_BT.shape[1]:
        return torch.zeros(len(value_BT), dtype=torch.float64)
    sorted_BT = value_BT.double().masked_fill(~among_BT, torch.inf).sort(1).values
    place_B = share * (among_BT.sum(1) - 1).clamp(min=0).double()
    low_B, high_B = (
        sorted_BT.gather(1, place.long()[:, None])[:, 0]
        for place in (place_B.floor(), place_B.ceil())
    )
    return torch.where(among_BT.any(1), low_B + (high_B - low_B) * place_B.frac(), 0.0)


def finite(
    value_BT: Float[Tensor, "B T"], among_BT: Bool[Tensor, "B T"], name: str
) -> Float[Tensor, "B T"]:
    """The values in float64, detached, and 0 outside `among_BT`.

    Raises RunError if a value inside `among_BT` is NaN or infinite.
    """
    broken_BT = among_BT & ~value_BT.isfinite()
    if broken_BT.any():
        raise RunError(
            f"evidence {name!r} is NaN or infinite at {int(broken_BT.sum())} of "
            f"{int(among_BT.sum())} response tokens, where a "
            "finite number was expected; most likely a model's logits overflowed: check "
            "its weights and use bfloat16 or float32"
        )
    return torch.where(among_BT, value_BT.detach().double(), 0.0)
