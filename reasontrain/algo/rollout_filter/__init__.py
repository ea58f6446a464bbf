"""Rollout filters: drop whole rollouts before evidence is measured, so that they cost nothing.

Filters run after advantages. A filter is a frozen dataclass; calling it maps the batch of a whole
step, on the driver, to one with fewer rollouts, and `kept_share(progress)` states the fraction that
remains. To add one to the package, add one file and one name to the union `RolloutFilter`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from reasontrain.algo.rollout_filter.chain import FilterChain
from reasontrain.algo.rollout_filter.custom import FilterPlugin
from reasontrain.algo.rollout_filter.gfpo import Gfpo
from reasontrain.algo.rollout_filter.max_variance import MaxVariance
from reasontrain.algo.rollout_filter.random import RandomRollouts
from reasontrain.types import Batch


@dataclass(frozen=True, kw_only=True)
class AllRollouts:
    """Keep every rollout."""

    kind: Literal["all"] = "all"

    def kept_share(self, progress: float) -> float:
        """1: no rollout is dropped."""
        return 1.0

    def __call__(self, batch: Batch) -> Batch:
        """The batch as it is."""
        return batch


RolloutFilter = AllRollouts | RandomRollouts | MaxVariance | Gfpo | FilterChain | FilterPlugin


def filters_of(rollout_filter: RolloutFilter) -> tuple[RolloutFilter, ...]:
    """The filters of a chain in order, or the one filter."""
    if isinstance(rollout_filter, FilterChain):
        return rollout_filter.filters
    return (rollout_filter,)
