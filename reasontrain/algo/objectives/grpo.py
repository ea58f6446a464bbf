"""The clipped policy gradient with token-level ratios."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from reasontrain.algo.objectives.clipping import ClippedRatio
from reasontrain.algo.objectives.reference_kl import EntropyBonus
from reasontrain.types import Losses, NotNegative, Probability, TokenFields, TokenStats


@dataclass(frozen=True, kw_only=True)
class Grpo(EntropyBonus, ClippedRatio):
    """-min(r A, clip(r, 1 - clip_low, 1 + clip_high) A) with r = p / p_old, and penalties.

    GRPO, arXiv 2402.03300, eq. 3. A clip_high above clip_low is DAPO's (arXiv 2503.14476).
    Advantages and loss aggregation are separate settings. With one update per batch (`learn.
    updates_per_batch`) r is 1 up to rounding and the bounds never act. `ReferenceKl` describes the
    penalty, whose gradient by default is not that of the divergence it estimates, `EntropyBonus`
    the bonus and `ClippedRatio` the other settings.
    """

    granularity: ClassVar[Literal["token"]] = "token"
    score_at_sampling_temperature: ClassVar[bool] = True
    kind: Literal["grpo"] = "grpo"
    clip_low: Probability = 0.2
    clip_high: NotNegative = 0.2

    def __call__(self, policy: TokenStats, batch: TokenFields) -> Losses:
        """One loss per token; metrics: the ratio, and the tokens at which clipping is active."""
        ratio_N = torch.exp(self.clamped(policy.logp_N - batch.old_logp_N))
        losses = self.clipped_loss(
            ratio_N, (self.clip_low, self.clip_high), policy.logp_N, batch, policy
        )
        return self.with_bonus(losses, policy)
