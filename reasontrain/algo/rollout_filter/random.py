"""Random rollouts: the control for filters with the same keep_ratio."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch

from reasontrain.algo._top_k import num_kept
from reasontrain.algo.keep_ratio_schedule import LinearSchedule
from reasontrain.algo.rollout_filter._pools import Pool, pools, take
from reasontrain.types import Batch


@dataclass(frozen=True, kw_only=True)
class RandomRollouts:
    """Keep a random max(1, floor(keep_ratio * M)) of the M rollouts of the step or of each group.

    All subsets of that size are equally likely.
    """

    kind: Literal["random"] = "random"
    scope: Pool = "batch"
    keep_ratio: LinearSchedule = field(
        default_factory=lambda: LinearSchedule(init=0.25, final=0.75)
    )

    def kept_share(self, progress: float) -> float:
        """Fraction of rollouts that are kept at this progress of the run."""
        return self.keep_ratio.at(progress)

    def __call__(self, batch: Batch) -> Batch:
        """The batch with the kept rollouts."""
        keep_ratio = self.keep_ratio.at(batch.progress)
        return take(
            batch,
            [
                pool_M[: int(num_kept(keep_ratio, torch.tensor([len(pool_M)])))]
                for pool_M in pools(batch, self.scope)
            ],
        )
