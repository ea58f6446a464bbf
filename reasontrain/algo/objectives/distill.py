"""Distillation over the full vocabulary; on-policy if the student sampled the responses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from jaxtyping import Float

from reasontrain.types import Losses, Probability, TokenFields, TokenStats

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Distill:
    """A divergence between student p and teacher q at each token, in nats.

    No gradient flows through the sampling. `reverse_kl` is KL(p || q), the divergence of on-policy
    distillation (TIP, arXiv 2604.14084, eq. 1); `forward_kl` is KL(q || p); `jsd` is (1 - beta)
    KL(p || m) + beta KL(q || m) with m = (1 - beta) p + beta q (GKD, arXiv 2306.13649, in TRL's
    convention: beta 0 is the forward KL and beta 1 the reverse). Only `jsd` reads `beta`.

    With a teacher of `top_k` ids, p and q are the distributions over these ids and, by
    `teacher.tail`, one bucket for all others (see `vocab.top_k` and docs/teachers.md).
    """

    granularity: ClassVar[Literal["token"]] = "token"
    needs_teacher: ClassVar[bool] = True
    score_at_sampling_temperature: ClassVar[bool] = False
    required_evidence: ClassVar[frozenset[str]] = frozenset()
    kind: Literal["distill"] = "distill"
    divergence: Literal["reverse_kl", "forward_kl", "jsd"] = "reverse_kl"
    beta: Probability = 0.5

    def __call__(self, policy: TokenStats, batch: TokenFields) -> Losses:
        """One loss per token; the metric `divergence` is the unweighted loss."""
        divergence_N = self._divergence(policy)
        return Losses(loss=divergence_N, stats={"divergence": divergence_N})

    def _divergence(self, policy: TokenStats) -> Float[Tensor, " N"]:
        match self.divergence:
            case "reverse_kl":
                return policy.kl_reverse_N
            case "forward_kl":
                return policy.kl_forward_N
            case "jsd":
                return policy.jsd_N(self.beta)
