"""Terms of the covariance of advantage and log-prob (Clip-Cov, KL-Cov)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float

from reasontrain.algo.token_selection.scores.normalise import finite
from reasontrain.types import Batch

if TYPE_CHECKING:
    from torch import Tensor


def covariances(batch: Batch, among_BT: Bool[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    """(A - mean A)(log p - mean log p) in float64, with means over `among_BT`; 0 elsewhere.

    Its mean over the tokens is the covariance of advantage and log-prob, which predicts by how much
    an update lowers the entropy (arXiv 2505.22617, section 3).
    """
    logp_BT = finite(batch.old_logp_BT, among_BT, "old_logp")
    advantage_BT = batch.advantage_B.double()[:, None].expand(logp_BT.shape)
    num = among_BT.sum().clamp(min=1)
    mean_advantage = torch.where(among_BT, advantage_BT, 0.0).sum() / num
    mean_logp = logp_BT.sum() / num
    product_BT = (advantage_BT - mean_advantage) * (logp_BT - mean_logp)
    return torch.where(among_BT, product_BT, 0.0)
