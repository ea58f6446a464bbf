"""The reverse KL estimated from the sampled token alone, where a teacher gives no more than that.

With y the token, drawn from the student p, and q the teacher:

    k(y) = log p(y) - log q(y),       E_p[k] = KL(p || q)
    gradient of the loss: k(y) d log p(y),   E_p[k d log p] = d KL(p || q)

That is the policy gradient whose advantage at each token is log q - log p, held fixed. Both hold in
expectation over tokens that are drawn from p itself; one estimate may be negative.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from reasontrain.types import UserError
from reasontrain.vocab.analytic import AnalyticDistribution, BufferPool, canonical_name
from reasontrain.vocab.ranks import STUDENT_STATISTICS

REVERSE_ALONE = (
    "the teacher gives the log-prob of the sampled token alone (teacher.scores: sampled), of which "
    "only the reverse KL can be estimated; use `scores: top_k`"
)


@dataclass(frozen=True, eq=False)
class SampledTeacher:
    """A frozen model at the student's positions, by log q of the token at each, in nats."""

    logq_N: Float[Tensor, " N"]

    def __getitem__(self, rows: slice | Bool[Tensor, " N"]) -> SampledTeacher:
        """The same at a subset of the positions."""
        return SampledTeacher(self.logq_N[rows])

    def to(self, device: torch.device) -> SampledTeacher:
        """The same on another device."""
        return SampledTeacher(self.logq_N.to(device))


class SampledDistribution(AnalyticDistribution):
    """The student's distribution at N positions, compared with a teacher at the token there."""

    def __init__(
        self,
        logits_NV: Float[Tensor, "N V"],
        ids_N: Int[Tensor, " N"],
        teacher: SampledTeacher,
        buffers: BufferPool,
    ) -> None:
        """Overwrite `logits_NV` with log p.

        Args:
            logits_NV: the student's logits, divided by the temperature.
            ids_N: the token at each position.
            teacher: the teacher at these positions.
            buffers: the pool of work buffers.
        """
        super().__init__(logits_NV, ids_N, None, buffers)
        self._logq_N = teacher.logq_N

    def _compute(self, name: str) -> Float[Tensor, " N"]:
        if name in STUDENT_STATISTICS:
            return super()._compute(name)
        if name == "teacher_logp":
            return self._logq_N.to(self.logp_NV.dtype)
        if name == "kl_reverse":
            return self.value("logp") - self._logq_N.to(self.logp_NV.dtype)
        raise UserError(REVERSE_ALONE)

    def teacher_top_mass(self, num: int) -> Float[Tensor, " N"]:
        """Refused: the teacher is known at one id."""
        raise UserError(REVERSE_ALONE)

    def top_divergence(self, num: int) -> Float[Tensor, " N"]:
        """Refused: the teacher is known at one id."""
        raise UserError(REVERSE_ALONE)

    def gradient(self, stat_grads: Mapping[str, Float[Tensor, " N"]]) -> Float[Tensor, "N V"]:
        """See `AnalyticDistribution`; the estimate's gradient is k(y) d log p(y)."""
        own: dict[str, Tensor] = {}
        for name, grad_N in stat_grads.items():
            statistic = canonical_name(name)
            if statistic == "kl_reverse":
                grad_N = grad_N * self.value("kl_reverse")
                statistic = "logp"
            own[statistic] = own[statistic] + grad_N if statistic in own else grad_N
        return super().gradient(own)
