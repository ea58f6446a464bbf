"""Random rollouts: the control for filters with the same keep_ratio."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch

from reasontrain.algo._top_k import num_kept
from reasontrain.algo.keep_ratio_schedule import LinearSchedule
from reasontrain.algo.rollout_filter._pools import Pool, has_signal, pools, take
from reasontrain.types import Batch, NotNegative


@dataclass(frozen=True, kw_only=True)
class RandomRollouts:
    """Keep a random max(1, floor(keep_ratio * M)) of the M rollouts of the step or of each group.

    All subsets of that size are equally likely. Pools without a learning signal are dropped, as
    `MaxVariance` drops them, so that both keep equally many rollouts; a step in which no pool has
    one, as without advantages, keeps its share.
    """

    kind: Literal["random"] = "random"
    scope: Pool = "batch"
    keep_ratio: LinearSchedule = field(
        default_factory=lambda: LinearSchedule(init=0.25, final=0.75)
    )
    std_floor: NotNegative = 1e-4

    def kept_share(self, progress: float) -> float:
        """Fraction of rollouts that are kept at this progress of the run."""
        return self.keep_ratio.at(progress)

    def __call__(self, batch: Batch) -> Batch:
        """The batch with the kept rollouts."""
        keep_ratio = self.keep_ratio.at(batch.progress)
        every = pools(batch, self.scope)
        live = [pool_M for pool_M in every if has_signal(batch, pool_M, self.std_floor)]
        return take(
            batch,
            [
                pool_M[: int(num_kept(keep_ratio, torch.tensor([len(pool_M)])))]
                for pool_M in live or every
            ],
        )
