"""KL penalty that keeps a policy near its reference, shared by several objectives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Float

from reasontrain.types import Losses, NotNegative, Positive, TokenFields

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class ReferenceKl:
    """Settings of the penalty reference_kl * k3, with k3 = r - 1 - log r and r = p_ref / p.

    k3 (Schulman 2020) estimates KL(p || p_ref) without bias for tokens drawn from p, and is never
    negative. Its gradient is that of another divergence:

    - `kl_estimator: k3` is GRPO as published (arXiv 2402.03300, eq. 4). Over tokens drawn from p,
      the expected gradient of k3 is that of KL(p_ref || p).
    - `k3_ratio` multiplies k3 by the ratio p / p_old, whose gradient counts too. The expected
      gradient is that of KL(p || p_ref), as in DeepSeek-V3.2 and TRL (`use_bias_correction_kl`).

    The penalty is part of a token's loss. Tokens that the selection rule leaves out, and rollouts
    that a filter drops, are not penalised, and a fractional weight scales the penalty as it does
    the loss; TRL and verl penalise all response tokens. `max_log_ratio` clamps every log-ratio,
    to p_old and to p_ref, to +-max_log_ratio (verl: 20); beyond it there is no gradient.
    """

    reference_kl: NotNegative = 0.0
    kl_estimator: Literal["k3", "k3_ratio"] = "k3"
    max_log_ratio: Positive | None = None

    def clamped(self, log_ratio_N: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
        """Log-ratios within +-max_log_ratio, in nats."""
        bound = self.max_log_ratio
        return log_ratio_N if bound is None else log_ratio_N.clamp(-bound, bound)

    def penalised(
        self,
        losses: Losses,
        logp_N: Float[Tensor, " N"],
        old_logp_N: Float[Tensor, " N"],
        fields: TokenFields,
    ) -> Losses:
        """The losses with the penalty, and its metric; unchanged if `reference_kl` is 0.

        Args:
            losses: loss and metrics of each token.
            logp_N: the policy's log-probs.
            old_logp_N: log-probs of the policy that drew the tokens.
            fields: fields of the tokens, with `ref_logp` if the penalty is on.

        Returns:
            Losses with the metric `reference_kl`, the value of k3.
        """
        if self.reference_kl == 0:
            return losses
        k3_N = k3(self.clamped(fields.ref_logp_N - logp_N))
        penalty_N = k3_N
        if self.kl_estimator == "k3_ratio":
            penalty_N = k3_N * torch.exp(self.clamped(logp_N - old_logp_N))
        return Losses(
            loss=losses.loss + self.reference_kl * penalty_N,
            stats={**losses.stats, "reference_kl": k3_N},
        )

    @property
    def reference_evidence(self) -> frozenset[str]:
        """The evidence that `penalised` reads."""
        return frozenset({"ref_logp"}) if self.reference_kl > 0 else frozenset()


def k3(log_ratio_N: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
    """r - 1 - log r, from log r."""
    return torch.expm1(log_ratio_N) - log_ratio_N
