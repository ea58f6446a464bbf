"""Weights and metrics from the contrastive scores of cDPO."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float

from reasontrain.types import Stats

if TYPE_CHECKING:
    from torch import Tensor

LOW = 0.1
"""Tokens with a score below this are typical of wrong solutions (cDPO's critical tokens)."""


def weights(logscore: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
    """1 - s from log s (cDPO, arXiv 2411.19943).

    expm1 keeps the digits near s = 1.
    """
    return -torch.expm1(logscore.clamp(max=0.0))


def scored(logscore_N: Float[Tensor, " N"]) -> Stats:
    """Mean score s, share of tokens with s below 0.1, and mean weight 1 - s; NaN is skipped."""
    known_N = logscore_N[~logscore_N.isnan()].double()
    if not len(known_N):
        return {}
    return {
        "ce_score_mean": float(known_N.exp().mean()),
        "ce_low_share": float((known_N.exp() < LOW).double().mean()),
        "ce_weight_mean": float(weights(known_N).mean()),
    }
