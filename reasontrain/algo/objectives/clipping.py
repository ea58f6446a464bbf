"""Clipped importance ratios of the policy gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import torch
from annotated_types import Gt
from jaxtyping import Float

from reasontrain.algo.objectives.reference_kl import ReferenceKl
from reasontrain.types import Losses, TokenFields, TokenStats

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class ClippedRatio(ReferenceKl):
    """Settings of the ratio that `Grpo` and `Gspo` share.

    `dual_clip` c bounds the loss of a negative advantage by c |A| (Ye et al. 2020, arXiv
    1912.09729; verl: 3); without it a large ratio makes it arbitrarily large.
    """

    dual_clip: Annotated[float, Gt(1)] | None = None

    @property
    def required_evidence(self) -> frozenset[str]:
        """Old log-probs, and those of the reference if they are compared with."""
        return frozenset({"old_logp"}) | self.reference_evidence

    def clipped_loss(
        self,
        ratio_N: Float[Tensor, " N"],
        bounds: tuple[float, float],
        logp_N: Float[Tensor, " N"],
        fields: TokenFields,
        policy: TokenStats | None = None,
    ) -> Losses:
        """-min(r A, clip(r) A) with the dual clip and the penalty.

        Args:
            ratio_N: r at each token, differentiable.
            bounds: clip(r) is 1 - bounds[0] to 1 + bounds[1].
            logp_N: the policy's log-probs.
            fields: fields of the tokens.
            policy: the policy's statistics, for an exact penalty.

        Returns:
            Losses; the metrics are the ratio, the tokens whose gain is clipped, and that of the
            penalty.
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
        losses = Losses(loss=-bounded_N, stats={"ratio": ratio_N, "clipped": is_clipped_N})
        return self.penalised(losses, logp_N, fields.old_logp_N, fields, policy)
