"""Maximum likelihood: supervised fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from reasontrain.types import Losses, TokenFields, TokenStats


@dataclass(frozen=True, kw_only=True)
class Nll:
    """-log p(token), in nats.

    The metric `nll` is its mean over the tokens with a nonzero weight, not weighted.
    """

    granularity: ClassVar[Literal["token"]] = "token"
    needs_teacher: ClassVar[bool] = False
    score_at_sampling_temperature: ClassVar[bool] = False
    required_evidence: ClassVar[frozenset[str]] = frozenset()
    kind: Literal["nll"] = "nll"

    def __call__(self, policy: TokenStats, batch: TokenFields) -> Losses:
        """One loss per token."""
        return Losses(loss=-policy.logp_N, stats={"nll": -policy.logp_N})
