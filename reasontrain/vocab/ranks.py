"""Statistics of the order of ids: ranks, and the entropy of the likeliest ids alone.

Logits and log-probabilities give the same: a constant per position cancels. None of them has a
gradient.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

TOP = 20
"""Ids of the entropy of the likeliest ids (EAFT, arXiv 2601.02151)."""

STUDENT_STATISTICS = frozenset({"logp", "entropy", "rank", "entropy_top20"})
"""Statistics that need no teacher."""


def rank_of(scores_NV: Float[Tensor, "N V"], ids_N: Int[Tensor, " N"]) -> Float[Tensor, " N"]:
    """1 more than the number of ids with a greater score than the given one.

    Ids of equal scores have the same rank.
    """
    own_N1 = scores_NV.gather(1, ids_N[:, None])
    return (scores_NV > own_N1).sum(1).to(scores_NV.dtype) + 1


def top_entropy(scores_NV: Float[Tensor, "N V"], num: int = TOP) -> Float[Tensor, " N"]:
    """Entropy in nats of the `num` likeliest ids, renormalised; of all, if there are fewer."""
    top_NK = scores_NV.topk(min(num, scores_NV.shape[1]), sorted=False).values
    return torch.special.entr(top_NK.softmax(1)).sum(1)
