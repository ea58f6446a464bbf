"""The policy gradient without ratios or clipping."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from reasontrain.algo.objectives.reference_kl import penalised, reference_needs
from reasontrain.types import Losses, NotNegative, TokenFields, TokenStats


@dataclass(frozen=True, kw_only=True)
class Reinforce:
    """-A log p(token) (Williams 1992), plus reference_kl * k3.

    Correct for one optimiser step per batch of on-policy rollouts only.
    """

    granularity: ClassVar[Literal["token"]] = "token"
    needs_teacher: ClassVar[bool] = False
    score_at_sampling_temperature: ClassVar[bool] = True
    kind: Literal["reinforce"] = "reinforce"
    reference_kl: NotNegative = 0.0

    @property
    def required_evidence(self) -> frozenset[str]:
        """Log-probs of the reference if the penalty is on."""
        return reference_needs(self.reference_kl)

    def __call__(self, policy: TokenStats, batch: TokenFields) -> Losses:
        """One loss per token."""
        loss_N, stats = penalised(
            -batch.advantage_N * policy.logp_N, self.reference_kl, policy, batch
        )
        return Losses(loss=loss_N, stats=stats)
