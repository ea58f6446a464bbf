"""Clipped importance ratios of the policy gradient, and a correction for the sampler's rounding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import torch
from annotated_types import Gt
from jaxtyping import Float

from reasontrain.algo.objectives.reference_kl import ReferenceKl
from reasontrain.types import Losses, Positive, TokenFields

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class ClippedRatio(ReferenceKl):
    """Settings of the ratio that `Grpo` and `Gspo` share.

    `dual_clip` c bounds the loss of a negative advantage by c |A| (Ye et al. 2020, arXiv
    1912.09729; verl: 3); without it a large ratio makes it arbitrarily large.

    `importance_cap` multiplies the loss of a token by min(p_old / p_sampler, importance_cap), a
    constant (TIS, Yao et al. 2025; TRL's default cap is 3). It corrects for a sampler that
    computes other log-probs than the learner, beside the clip and not within it, so `old_logp` is
    the learner's (see `learn.old_logp`). The penalty is not multiplied.
    """

    dual_clip: Annotated[float, Gt(1)] | None = None
    importance_cap: Positive | None = None

    @property
    def required_evidence(self) -> frozenset[str]:
        """Old log-probs, and those of sampler and reference if they are compared with."""
        sampled = {"sampled_logp"} if self.importance_cap is not None else set()
        return frozenset({"old_logp"} | sampled) | self.reference_evidence

    def clipped_loss(
        self,
        ratio_N: Float[Tensor, " N"],
        bounds: tuple[float, float],
        logp_N: Float[Tensor, " N"],
        fields: TokenFields,
    ) -> Losses:
        """-min(r A, clip(r) A) with this class's corrections and penalty.

        Args:
            ratio_N: r at each token, differentiable.
            bounds: clip(r) is 1 - bounds[0] to 1 + bounds[1].
            logp_N: the policy's log-probs.
            fields: fields of the tokens.

        Returns:
            Losses; the metrics are the ratio, the tokens whose gain is clipped, and those of the
            corrections that are on.
        """
        low, high = bounds
        gain_N = fields.advantage_N * ratio_N
        clipped_gain_N = fields.advantage_N * ratio_N.clamp(1 - low, 1 + high)
        is_clipped_N = clipped_gain_N < gain_N
        bounded_N = torch.minimum(gain_N, clipped_gain_N)
        if self.dual_clip is not None:
            # For A >= 0 this is no bound: min(r A, ...) >= 0 >= -c A.
            least_N = -self.dual_clip * fields.advantage_N.abs()
            is_clipped_N = is_clipped_N | (bounded_N < least_N)
            bounded_N = torch.maximum(bounded_N, least_N)
        loss_N = -bounded_N
        stats = {"ratio": ratio_N, "clipped": is_clipped_N}
        if self.importance_cap is not None:
            weight_N = torch.exp(fields.old_logp_N - fields.sampled_logp_N)
            loss_N = loss_N * weight_N.clamp(max=self.importance_cap)
            stats["importance_weight"] = weight_N
        return self.penalised(Losses(loss=loss_N, stats=stats), logp_N, fields.old_logp_N, fields)
