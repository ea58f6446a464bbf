"""The policy gradient through a soft chain of thought."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from reasontrain.types import Losses, SoftScoring, TokenFields, TokenStats


@dataclass(frozen=True, kw_only=True)
class SoftReinforce(SoftScoring):
    """-A log pi at every row (Soft Tokens, arXiv 2509.19170, eq. 8): of a token its log-prob, of a
    soft token its density.

    The density is that of the embedding that was fed, N(softmax(z / tau) E, sigma^2), summed over
    the coordinates (eq. 10, see `vocab.soft`); the embedding is a fixed action. Averaged by
    `seq_mean_token_sum` over advantages of `leave_one_out` it is the paper's loss; of hard thoughts
    alone it is `reinforce`. Right for one optimiser step per batch of fresh rollouts.
    """

    granularity: ClassVar[Literal["token"]] = "token"
    needs_teacher: ClassVar[bool] = False
    score_at_sampling_temperature: ClassVar[bool] = True
    required_evidence: ClassVar[frozenset[str]] = frozenset()
    kind: Literal["soft_reinforce"] = "soft_reinforce"

    def __call__(self, policy: TokenStats, batch: TokenFields) -> Losses:
        """One loss per row."""
        return Losses(loss=-batch.advantage_N * policy.logp_N)
