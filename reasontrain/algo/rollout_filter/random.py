"""Random rollouts: the control of every filter that keeps the same share."""

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
    """Keep max(1, floor(share * M)) of the M rollouts of the step or of each group, all sets
    equally likely.
    """

    kind: Literal["random"] = "random"
    scope: Pool = "batch"
    keep_ratio: LinearSchedule = field(
        default_factory=lambda: LinearSchedule(init=0.25, final=0.75)
    )

    def kept_share(self, progress: float) -> float:
        """The share of rollouts that are kept at this progress of the run."""
        return self.keep_ratio.at(progress)

    def __call__(self, batch: Batch) -> Batch:
        """The batch with fewer rollouts."""
        keep_ratio = self.keep_ratio.at(batch.progress)
        return take(
            batch,
            [
                pool_M[: int(num_kept(keep_ratio, torch.tensor([len(pool_M)])))]
                for pool_M in pools(batch, self.scope)
            ],
        )
