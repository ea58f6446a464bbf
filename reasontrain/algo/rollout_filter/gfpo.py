"""Filter that keeps the shortest, or the most efficient, rollouts of each group."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from jaxtyping import Float, Int

from reasontrain.algo._top_k import num_kept
from reasontrain.algo.keep_ratio_schedule import LinearSchedule
from reasontrain.algo.rollout_filter._pools import pools, standardised, take
from reasontrain.types import Batch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Gfpo:
    """Keep the best max(1, floor(keep_ratio * M)) of the M rollouts of each prompt.

    GFPO, Shrivastava et al. 2025, arXiv 2508.09726. With `metric: length` the shortest responses
    are the best, with `reward_per_token` (the paper's token efficiency) those with the greatest
    reward per token. Ties go by a draw from (seed, step, rollout). With `renormalise` advantages
    become (A - mean) / (std + 1e-4) over the kept rollouts of a prompt, as in the paper, if the
    recipe's `advantage` is `mean_centred`; a prompt whose kept rollouts are all equal then has
    advantages of 0. Without, they stay those of the whole group.

    Departure: the paper divides by the tokens of all rollouts, dropped ones included; that is
    `loss_aggregation: sampled_token_mean`. With `token_mean` only kept ones count.

    Attributes:
        metric: what makes a rollout the best: few tokens, or much reward per token.
        keep_ratio: share of each group that is kept: a number, or `{init, final}` for a line over
            the run.
        renormalise: compare the kept rollouts of a group with each other alone.
    """

    scope: ClassVar[Literal["group"]] = "group"
    kind: Literal["gfpo"] = "gfpo"
    metric: Literal["length", "reward_per_token"] = "length"
    keep_ratio: LinearSchedule = field(default_factory=lambda: LinearSchedule(init=0.5))
    renormalise: bool = True

    def kept_share(self, progress: float) -> float:
        """Fraction of rollouts that are kept at this progress of the run."""
        return self.keep_ratio.at(progress)

    def __call__(self, batch: Batch) -> Batch:
        """The batch with the kept rollouts; its `sampled_*` totals do not change."""
        score_B = self._score(batch)
        share = self.keep_ratio.at(batch.progress)
        kept: list[Int[Tensor, "..."]] = []
        advantage_B = batch.advantage_B.clone()
        for pool_M in pools(batch, "group"):
            num = int(num_kept(share, torch.tensor([len(pool_M)])))
            best_K = pool_M[score_B[pool_M].argsort(descending=True, stable=True)[:num]]
            if self.renormalise:
                advantage_B[best_K] = standardised(batch.advantage_B[best_K])
            kept.append(best_K)
        return take(replace(batch, advantage_B=advantage_B), kept)

    def _score(self, batch: Batch) -> Float[Tensor, " B"]:
        """The metric in float64; higher is better."""
        length_B = batch.is_response_BT.sum(1).double()
        if self.metric == "length":
            return -length_B
        return batch.reward_B.double() / length_B.clamp(min=1)
