"""Filter that keeps the rollouts whose advantages vary most (D3S within or across groups, PODS)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Float, Int

from reasontrain.algo._top_k import num_kept
from reasontrain.algo.keep_ratio_schedule import LinearSchedule
from reasontrain.algo.rollout_filter._pools import Pool, has_signal, pools, standardised, take
from reasontrain.types import Batch, NotNegative

if TYPE_CHECKING:
    from torch import Tensor

_ROUNDING = 1e-12
"""Relative tolerance for ties: smaller differences of variances and means are rounding.

It is relative to the largest square and the largest absolute value.
"""


@dataclass(frozen=True, kw_only=True)
class MaxVariance:
    """Keep the N of M rollouts with the greatest variance of advantages.

    N = max(1, floor(keep_ratio * M)). With `scope: batch`, M counts all rollouts of the step (D3S,
    arXiv 2509.22115, its cross-group form); with `scope: group`, the rollouts of each prompt (its
    in-group form, and PODS, arXiv 2504.13818). `FilterChain` applies one after the other.
    Advantages are not recomputed for the kept rollouts. With `renormalise` they become (A - mean) /
    (std + 1e-4) over the kept rollouts of a pool, which is PODS if the recipe's `advantage` is
    `mean_centred`.

    Departures: a pool whose advantages have a root mean square below `std_floor` (in their unit)
    has no learning signal and is dropped entirely. PODS keeps N rollouts of every group, those
    without signal included, and averages over all of them; here they leave the denominator of
    `token_mean`, so that the step is larger by 1 / (share of groups with a signal). Rollouts masked
    from training are not candidates.
    """

    kind: Literal["max_variance"] = "max_variance"
    scope: Pool = "batch"
    keep_ratio: LinearSchedule = field(
        default_factory=lambda: LinearSchedule(init=0.25, final=0.75)
    )
    renormalise: bool = False
    std_floor: NotNegative = 1e-4

    def kept_share(self, progress: float) -> float:
        """Fraction of rollouts that are kept at this progress of the run."""
        return self.keep_ratio.at(progress)

    def __call__(self, batch: Batch) -> Batch:
        """The batch with the kept rollouts; its `sampled_*` totals do not change."""
        kept = [self._widest(batch, pool_M) for pool_M in pools(batch, self.scope)]
        if self.renormalise:
            advantage_B = batch.advantage_B.clone()
            for pool_K in kept:
                advantage_B[pool_K] = standardised(batch.advantage_B[pool_K])
            batch = replace(batch, advantage_B=advantage_B)
        return take(batch, kept)

    def _widest(self, batch: Batch, pool_M: Int[Tensor, " M"]) -> Int[Tensor, " K"]:
        """The kept rollouts of a pool."""
        if not has_signal(batch, pool_M, self.std_floor):
            return pool_M[:0]
        advantage_M = batch.advantage_B[pool_M].double()
        num = int(num_kept(self.keep_ratio.at(batch.progress), torch.tensor([len(pool_M)])))
        sorted_M, order_M = advantage_M.sort(stable=True)
        lowest = num_lowest(sorted_M, num)
        return pool_M[torch.cat([order_M[:lowest], order_M[len(order_M) - (num - lowest) :]])]


def num_lowest(sorted_M: Float[Tensor, " M"], num: int) -> int:
    """Number of lowest values in the subset of `num` values that has the greatest variance.

    The rest of the subset are the highest values. Variance is convex in each value, so an optimal
    subset consists of both ends of the sorted values (PODS, lemma 3.1), and prefix sums give the
    variances of all num + 1 such subsets at once. Ties go to the smaller |mean|, then to fewer low
    values. With `num` = 1 it is the value of largest magnitude.
    """
    if num == 1:
        return int(-sorted_M[0] > sorted_M[-1])
    lowest_S = torch.arange(num + 1)
    first_S, second_S = (
        _sums_of_both_ends(power_M, lowest_S, lowest_S + len(sorted_M) - num) / num
        for power_M in (sorted_M, sorted_M.square())
    )
    variance_S = second_S - first_S.square()
    size = sorted_M.abs().max()
    best_S = variance_S >= variance_S.max() - _ROUNDING * size.square()
    distance_S = first_S.abs().masked_fill(~best_S, torch.inf)
    return int((distance_S <= distance_S.min() + _ROUNDING * size).nonzero()[0])


def _sums_of_both_ends(
    value_M: Float[Tensor, " M"], below_S: Int[Tensor, " S"], above_S: Int[Tensor, " S"]
) -> Float[Tensor, " S"]:
    """Sum of the values before index `below` and from index `above` on."""
    prefix = torch.nn.functional.pad(value_M.cumsum(0), (1, 0))
    return prefix[below_S] + prefix[-1] - prefix[above_S]
