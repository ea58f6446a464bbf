"""The policy gradient through a soft chain of thought."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from reasontrain.types import Losses, SoftScoring, TokenFields, TokenStats


@dataclass(frozen=True, kw_only=True)
class SoftReinforce(SoftScoring):
    """-A log pi at every position, with the density at soft tokens (Soft Tokens, eq. 8).

    Soft Tokens is arXiv 2509.19170. At a token, log pi is its log-prob; at a soft token it is the
    log-density of the embedding that was fed under N(softmax(z / tau) E, sigma^2), summed over the
    coordinates (eq. 10, see `vocab.soft`). The embedding is a fixed action. With
    `seq_mean_token_sum` and `leave_one_out` advantages it is the paper's loss; without soft tokens
    it is `reinforce`. Correct for one optimiser step per batch of on-policy rollouts only.
    """

    granularity: ClassVar[Literal["token"]] = "token"
    needs_teacher: ClassVar[bool] = False
    score_at_sampling_temperature: ClassVar[bool] = True
    required_evidence: ClassVar[frozenset[str]] = frozenset()
    kind: Literal["soft_reinforce"] = "soft_reinforce"

    def __call__(self, policy: TokenStats, batch: TokenFields) -> Losses:
        """One loss per position."""
        return Losses(loss=-batch.advantage_N * policy.logp_N)
