"""The clipped policy gradient with sequence-level ratios."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from reasontrain.types import Losses, Positive, SequenceStats


@dataclass(frozen=True, kw_only=True)
class Gspo:
    """-min(s A, clip(s) A) at every token, where s has the value exp(mean_t log(pi / pi_old)).

    GSPO, arXiv 2507.18071, eq. 7, in the token form of that paper (eq. 14): the value of s is that
    of the whole response, over all response tokens whatever the selection; its gradient at a token
    is s times the gradient of that token's log-prob. With the loss averaged within each rollout it
    is GSPO itself.
    """

    granularity: ClassVar[Literal["token"]] = "token"
    needs_teacher: ClassVar[bool] = False
    score_at_sampling_temperature: ClassVar[bool] = True
    required_evidence: ClassVar[frozenset[str]] = frozenset({"old_logp"})
    kind: Literal["gspo"] = "gspo"
    clip_low: Positive = 3e-4
    clip_high: Positive = 4e-4

    def __call__(self, seen: SequenceStats) -> Losses:
        """One loss per token.

        Metrics: `ratio` is that of the response; `clipped` is 1 where clipping removes the
        gradient.
        """
        logp_N = seen.logp_N
        log_ratio_K = seen.means(logp_N.detach() - seen.columns.old_logp_N)
        ratio_N = torch.exp(log_ratio_K[seen.rollout_N] + logp_N - logp_N.detach())
        clipped_N = ratio_N.clamp(1 - self.clip_low, 1 + self.clip_high)
        gain_N = seen.columns.advantage_N * ratio_N
        clipped_gain_N = seen.columns.advantage_N * clipped_N
        return Losses(
            loss=-torch.minimum(gain_N, clipped_gain_N),
            stats={"clipped": clipped_gain_N < gain_N, "ratio": ratio_N.detach()},
        )
