"""The clipped policy gradient with sequence-level ratios."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from reasontrain.algo.objectives.clipping import ClippedRatio
from reasontrain.types import Losses, Positive, SequenceStats


@dataclass(frozen=True, kw_only=True)
class Gspo(ClippedRatio):
    """-min(s A, clip(s) A) at every token, where s has the value exp(mean_t log(pi / pi_old)).

    GSPO, arXiv 2507.18071, eq. 7, in the token form of that paper (eq. 14): the value of s is that
    of the whole response, over all response tokens whatever the selection; its gradient at a token
    is s times the gradient of that token's log-prob. With the loss averaged within each rollout it
    is GSPO itself. The bounds are narrower than the rounding of a sampler in bfloat16, so pi_old is
    the learner's by default (`learn.old_logp`). With one update per batch s is 1 up to rounding
    and the bounds never act; the paper takes four. `ReferenceKl` describes the penalty, with
    token-level ratios in `k3_ratio`; `ClippedRatio` the other settings.
    """

    granularity: ClassVar[Literal["token"]] = "token"
    score_at_sampling_temperature: ClassVar[bool] = True
    kind: Literal["gspo"] = "gspo"
    clip_low: Positive = 3e-4
    clip_high: Positive = 4e-4

    def __post_init__(self) -> None:
        if self.kl_estimator == "exact":
            raise ValueError(
                "`kl_estimator: exact` reads the whole distribution at a token, and gspo the "
                "log-probs of whole responses; use k3_ratio, or the objective grpo"
            )

    def __call__(self, seen: SequenceStats) -> Losses:
        """One loss per token.

        Metrics: `ratio` is that of the response; `clipped` is 1 where clipping removes the
        gradient.
        """
        logp_N = seen.logp_N
        log_ratio_K = seen.means(logp_N.detach() - seen.columns.old_logp_N)
        ratio_N = torch.exp(self.clamped(log_ratio_K)[seen.rollout_N] + logp_N - logp_N.detach())
        return self.clipped_loss(ratio_N, (self.clip_low, self.clip_high), logp_N, seen.columns)
