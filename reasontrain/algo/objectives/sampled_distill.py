"""Distillation on the sampled token alone: the policy gradient of the reverse KL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from reasontrain.types import Losses, TokenFields, TokenStats


@dataclass(frozen=True, kw_only=True)
class SampledDistill:
    """-A log p(token) with A = log q(token) - log p(token) without gradient, q the teacher.

    Over tokens drawn from p, the expected gradient is that of KL(p || q), which `distill` computes
    exactly; this one reads a single number of the teacher per token, and its gradient has more
    variance. It is the loss of IW-OPD (arXiv 2606.22600) and FiRe-OPD (arXiv 2606.02684), whose
    rules weigh it. Right for tokens that the policy sampled at temperature 1 and for one update per
    batch; a recipe with others is refused. The metric `sampled_kl` is -A, whose mean estimates the
    divergence.
    """

    granularity: ClassVar[Literal["token"]] = "token"
    needs_teacher: ClassVar[bool] = False
    score_at_sampling_temperature: ClassVar[bool] = False
    required_evidence: ClassVar[frozenset[str]] = frozenset({"teacher_logp"})
    kind: Literal["sampled_distill"] = "sampled_distill"

    def __call__(self, policy: TokenStats, batch: TokenFields) -> Losses:
        """One loss per token."""
        logp_N = policy.logp_N
        gap_N = logp_N.detach() - batch.teacher_logp_N
        return Losses(loss=gap_N * logp_N, stats={"sampled_kl": gap_N})
