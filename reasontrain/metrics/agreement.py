"""Agreement of two selections of the same tokens, and the evidence that a selection keeps."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from reasontrain.algo.evidence import EVIDENCE
from reasontrain.types import Batch, Stats


def kept_share(batch: Batch, weight_BT: Float[Tensor, "B T"]) -> float:
    """Share of the response tokens that have a weight; 0 if there are none."""
    among_BT = batch.is_response_BT
    return int((weight_BT[among_BT] != 0).sum()) / max(int(among_BT.sum()), 1)


def overlap(batch: Batch, weight_BT: Float[Tensor, "B T"], other_BT: Float[Tensor, "B T"]) -> float:
    """Tokens that both selections keep, as a share of those that at least one of them keeps.

    It is Jaccard's index: 1 for equal selections, and k / (2 - k) for two that keep a share k of
    the tokens, independently of each other.
    """
    among_BT = batch.is_response_BT
    one_N = weight_BT[among_BT] != 0
    other_N = other_BT[among_BT] != 0
    either = int((one_N | other_N).sum())
    return int((one_N & other_N).sum()) / either if either else 1.0


def kept_evidence(batch: Batch, weight_BT: Float[Tensor, "B T"]) -> Stats:
    """Share of the sum of each kind of evidence that the kept tokens have.

    Only evidence that is never negative has such a share; evidence whose sum is 0 or not finite is
    left out.
    """
    among_BT = batch.is_response_BT
    kept_BT = among_BT & (weight_BT != 0)
    shares: Stats = {}
    for name, column_BT in batch.evidence.items():
        if name not in EVIDENCE or EVIDENCE[name].bounds[0] < 0:
            continue
        total = float(column_BT[among_BT].double().sum())
        if 0 < total < float("inf"):
            shares[name] = float(column_BT[kept_BT].double().sum()) / total
    return shares
