"""KL penalty that keeps a policy near its reference, shared by several objectives."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float

from reasontrain.types import TokenFields, TokenStats

if TYPE_CHECKING:
    from torch import Tensor


def k3(logp_N: Float[Tensor, " N"], ref_logp_N: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
    """r - 1 - log r with r = p_ref / p: Schulman's k3 estimate of KL(p || p_ref).

    It is unbiased for tokens drawn from p, and never negative.
    """
    log_ratio_N = ref_logp_N - logp_N
    return torch.expm1(log_ratio_N) - log_ratio_N


def penalised(
    loss_N: Float[Tensor, " N"], strength: float, policy: TokenStats, batch: TokenFields
) -> tuple[Float[Tensor, " N"], dict[str, Float[Tensor, " N"]]]:
    """loss + strength * k3, and the metric `reference_kl`; the unchanged loss if strength is 0.

    Args:
        loss_N: loss of each token.
        strength: coefficient of the penalty; at 0 no evidence is read.
        policy: statistics of the policy.
        batch: fields of the tokens, with `ref_logp`.

    Returns:
        The loss with its penalty, and metrics of each token.
    """
    if strength == 0:
        return loss_N, {}
    k3_N = k3(policy.logp_N, batch.ref_logp_N)
    return loss_N + strength * k3_N, {"reference_kl": k3_N}


def reference_needs(strength: float) -> frozenset[str]:
    """The evidence that `penalised` reads."""
    return frozenset({"ref_logp"}) if strength > 0 else frozenset()
