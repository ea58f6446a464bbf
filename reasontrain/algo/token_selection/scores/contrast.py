"""What contrastive scores say of a response: weights, and whether two models told tokens apart at
all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float

from reasontrain.types import Stats

if TYPE_CHECKING:
    from torch import Tensor

LOW = 0.1
"""A token scored below this is what wrong solutions do: cDPO's critical tokens."""


def weights(logscore: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
    """1 - s of log s (cDPO, arXiv 2411.19943), without the rounding of 1 - exp where s is near 1."""
    return -torch.expm1(logscore.clamp(max=0.0))


def scored(logscore_N: Float[Tensor, " N"]) -> Stats:
    """The mean score s, the share of tokens with s below 0.1, and the mean weight 1 - s, of tokens
    that have a score.
    """
    known_N = logscore_N[~logscore_N.isnan()].double()
    if not len(known_N):
        return {}
    return {
        "ce_score_mean": float(known_N.exp().mean()),
        "ce_low_share": float((known_N.exp() < LOW).double().mean()),
        "ce_weight_mean": float(weights(known_N).mean()),
    }
