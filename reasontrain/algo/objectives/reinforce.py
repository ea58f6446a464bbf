"""The policy gradient without ratios or clipping."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from reasontrain.algo.objectives.reference_kl import EntropyBonus
from reasontrain.types import Losses, TokenFields, TokenStats


@dataclass(frozen=True, kw_only=True)
class Reinforce(EntropyBonus):
    """-A log p(token) (Williams 1992), and penalties (see `ReferenceKl` and `EntropyBonus`).

    Correct for one optimiser step per batch of on-policy rollouts only.
    """

    granularity: ClassVar[Literal["token"]] = "token"
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
        losses = self.penalised(losses, logp_N, logp_N.detach(), batch, policy)
        return self.with_bonus(losses, policy)
