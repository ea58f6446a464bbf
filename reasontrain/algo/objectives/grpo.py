"""The clipped policy gradient with token-level ratios."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from reasontrain.algo.objectives.reference_kl import penalised, reference_needs
from reasontrain.types import Losses, NotNegative, Probability, TokenFields, TokenStats


@dataclass(frozen=True, kw_only=True)
class Grpo:
    """-min(r A, clip(r, 1 - clip_low, 1 + clip_high) A) with r = p / p_old, plus reference_kl * k3.

    GRPO, arXiv 2402.03300, eq. 3. A clip_high above clip_low is DAPO's (arXiv 2503.14476).
    Advantages and loss aggregation are separate settings.
    """

    granularity: ClassVar[Literal["token"]] = "token"
    needs_teacher: ClassVar[bool] = False
    score_at_sampling_temperature: ClassVar[bool] = True
    kind: Literal["grpo"] = "grpo"
    clip_low: Probability = 0.2
    clip_high: NotNegative = 0.2
    reference_kl: NotNegative = 0.0

    @property
    def required_evidence(self) -> frozenset[str]:
        """Log-probs of the policy before the step, and of the reference if the penalty is on."""
        return frozenset({"old_logp"}) | reference_needs(self.reference_kl)

    def __call__(self, policy: TokenStats, batch: TokenFields) -> Losses:
        """One loss per token; metrics: the ratio, and the tokens at which clipping is active."""
        ratio_N = torch.exp(policy.logp_N - batch.old_logp_N)
        clipped_N = ratio_N.clamp(1 - self.clip_low, 1 + self.clip_high)
        gain_N, clipped_gain_N = (batch.advantage_N * r for r in (ratio_N, clipped_N))
        loss_N, stats = penalised(
            -torch.minimum(gain_N, clipped_gain_N), self.reference_kl, policy, batch
        )
        return Losses(
            loss=loss_N, stats={"ratio": ratio_N, "clipped": clipped_gain_N < gain_N, **stats}
        )
