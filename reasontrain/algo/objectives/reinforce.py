"""The policy gradient without ratios or clipping."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from reasontrain.algo.objectives.reference_kl import ReferenceKl
from reasontrain.types import Losses, TokenFields, TokenStats


@dataclass(frozen=True, kw_only=True)
class Reinforce(ReferenceKl):
    """-A log p(token) (Williams 1992), plus reference_kl * k3 (see `ReferenceKl`).

    Correct for one optimiser step per batch of on-policy rollouts only.
    """

    granularity: ClassVar[Literal["token"]] = "token"
    needs_teacher: ClassVar[bool] = False
    score_at_sampling_temperature: ClassVar[bool] = True
    kind: Literal["reinforce"] = "reinforce"

    @property
    def required_evidence(self) -> frozenset[str]:
        """Log-probs of the reference if the penalty is on."""
        return self.reference_evidence

    def __call__(self, policy: TokenStats, batch: TokenFields) -> Losses:
        """One loss per token."""
        logp_N = policy.logp_N
        losses = Losses(loss=-batch.advantage_N * logp_N)
        return self.penalised(losses, logp_N, logp_N.detach(), batch)
