"""Advantages in proportion to the entropy of a token among its rivals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from jaxtyping import Float

from reasontrain.algo.token_selection.scores.normalise import finite
from reasontrain.types import Batch, NotNegative, Positive

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Gtpo:
    """A (1 + bonus H / mean H), with H the policy's entropy before the step.

    GTPO, Tan et al. 2025, arXiv 2508.04349: credit is shared out in proportion to H_{i,t} / sum_k
    H_{k,t} over the rollouts k of a group that have a token at the same place t of the response and
    an advantage of the same sign; times their number, this is H over its mean. `mean: step` divides
    by the mean of all response tokens of the step instead, which does not depend on the place.

    `wrong` is the treatment of negative advantages, on which descriptions of the paper differ:
    `entropy` uses the same weights, `inverse` those of 1 / H, which punishes mistakes that the
    policy was sure of. `entropy_floor`, in nats, bounds 1 / H.

    Departure: the paper shapes rewards and normalises them over the tokens of the group again; here
    the advantages of rollouts, already normalised, are shaped.

    Attributes:
        bonus: factor of H / mean H.
        mean: tokens of the mean: rivals at the same place, or all of the step.
        wrong: weights of negative advantages, as above.
        entropy_floor: least entropy of `wrong: inverse`, in nats.
    """

    required_evidence: ClassVar[frozenset[str]] = frozenset({"entropy"})
    kind: Literal["gtpo"] = "gtpo"
    bonus: NotNegative = 0.1
    mean: Literal["place", "step"] = "place"
    wrong: Literal["entropy", "inverse"] = "entropy"
    entropy_floor: Positive = 0.01

    def __call__(self, batch: Batch) -> Float[Tensor, "B T"]:
        """Advantages in float64."""
        among_BT = batch.is_response_BT
        advantage_B1 = batch.advantage_B.double()[:, None]
        entropy_BT = finite(batch.entropy_BT, among_BT, "entropy")
        share_BT = self._over_mean(batch, entropy_BT)
        if self.wrong == "inverse":
            inverse_BT = torch.where(among_BT, 1 / entropy_BT.clamp(min=self.entropy_floor), 0.0)
            share_BT = torch.where(advantage_B1 < 0, self._over_mean(batch, inverse_BT), share_BT)
        return advantage_B1 * (1 + self.bonus * share_BT)

    def _over_mean(self, batch: Batch, value_BT: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        """The value over its mean among rivals; 0 where that is 0, and outside of responses."""
        among_BT = batch.is_response_BT
        if self.mean == "step":
            pool_N = torch.zeros(int(among_BT.sum()), dtype=torch.long)
        else:
            place_BT = among_BT.long().cumsum(1)
            rivals_B = 2 * batch.group_B + (batch.advantage_B < 0)
            _, rivals_B = rivals_B.unique(return_inverse=True)
            pool_BT = rivals_B[:, None] * (among_BT.shape[1] + 1) + place_BT
            _, pool_N = pool_BT[among_BT].unique(return_inverse=True)
        value_N = value_BT[among_BT]
        num_pools = int(pool_N.max()) + 1 if len(pool_N) else 0
        sum_P = value_N.new_zeros(num_pools).index_add_(0, pool_N, value_N)
        size_P = value_N.new_zeros(num_pools).index_add_(0, pool_N, torch.ones_like(value_N))
        mean_N = (sum_P / size_P)[pool_N]
        share_BT = torch.zeros_like(value_BT)
        share_BT[among_BT] = torch.where(mean_N > 0, value_N / mean_N, 0.0)
        return share_BT
