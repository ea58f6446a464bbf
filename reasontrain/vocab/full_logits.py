"""Reference backend: all logits in memory, statistics by their formulas, gradients by autograd.

Needs several tensors of N x V numbers.
"""

from __future__ import annotations

import math
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from reasontrain.types import UserError
from reasontrain.vocab.analytic import LOGP_FLOOR, NO_TEACHER, canonical_name, jsd_beta
from reasontrain.vocab.head import Head, accumulation_dtype
from reasontrain.vocab.mixture import AnyTeacher, MixedTeacher
from reasontrain.vocab.ranks import TOP
from reasontrain.vocab.sampled import REVERSE_ALONE, SampledTeacher
from reasontrain.vocab.top_k import NEEDS_ALL, TopKTeacher


def logits(
    hidden_ND: Float[Tensor, "N D"], head: Head, temperature: float = 1.0
) -> Float[Tensor, "N V"]:
    """softcap * tanh(x / softcap) / temperature with x = scale * (h W^T + b), in fp32.

    The weight is first rounded to the head's `matmul_dtype`, as the other backends do.
    """
    dtype = accumulation_dtype(hidden_ND)
    weight_VD = head.weight_VD.to(head.matmul_dtype or head.weight_VD.dtype).to(dtype)
    x_NV = hidden_ND.to(dtype) @ weight_VD.t()
    x_NV = head.scale * (x_NV if head.bias_V is None else x_NV + head.bias_V)
    if head.softcap is not None:
        x_NV = head.softcap * torch.tanh(x_NV / head.softcap)
    if head.num_tokens is not None:
        is_token_V = torch.arange(x_NV.shape[1], device=x_NV.device) < head.num_tokens
        x_NV = x_NV.masked_fill(~is_token_V, -torch.inf)
    return x_NV / temperature


def _log_softmax(logits_NV: Float[Tensor, "N V"]) -> Float[Tensor, "N V"]:
    return torch.log_softmax(logits_NV, -1).clamp(min=LOGP_FLOOR)


def _at_least_zero(value_N: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
    """The value with negative rounding errors set to 0 and the gradient left as it is."""
    return value_N + (value_N.clamp(min=0) - value_N).detach()


class FullLogitsDistribution:
    """The student's distribution at N positions, and the teacher's if a divergence is needed.

    Divergences are over the S ids that both vocabularies share.
    """

    def __init__(
        self,
        hidden_ND: Float[Tensor, "N D"],
        head: Head,
        ids_N: Int[Tensor, " N"],
        temperature: float,
        teacher: AnyTeacher | None,
    ) -> None:
        self.ids_N = ids_N
        self._temperature = temperature
        self._teacher = teacher
        self._num_tokens = head.num_tokens or head.width
        self.logits_NV = logits(hidden_ND, head, temperature)

    @cached_property
    def logp_NV(self) -> Float[Tensor, "N V"]:
        """The student's log-probabilities."""
        return _log_softmax(self.logits_NV)

    @cached_property
    def logq_NS(self) -> Float[Tensor, "N S"]:
        """The teacher's log-probabilities over the shared ids, without a gradient."""
        if self._teacher is None:
            raise UserError(NO_TEACHER)
        if isinstance(self._teacher, TopKTeacher):
            raise UserError(NEEDS_ALL)
        if isinstance(self._teacher, SampledTeacher):
            raise UserError(REVERSE_ALONE)
        with torch.no_grad():
            if isinstance(self._teacher, MixedTeacher):
                every = slice(0, len(self.logits_NV))
                logits_NU = self._teacher.logits(every, self._temperature)
            else:
                logits_NU = logits(self._teacher.hidden_ND, self._teacher.head, self._temperature)
            return _log_softmax(logits_NU[:, : self.logits_NV.shape[1]])

    @cached_property
    def shared_logp_NS(self) -> Float[Tensor, "N S"]:
        """The student's log-probabilities over the shared ids."""
        width = self.logq_NS.shape[1]
        return (
            self.logp_NV
            if width == self.logits_NV.shape[1]
            else _log_softmax(self.logits_NV[:, :width])
        )

    def value(self, name: str) -> Float[Tensor, " N"]:
        """A statistic by name; differentiable if it is one of `types.TokenStats`."""
        name = canonical_name(name)
        if name == "logp":
            return self.logp_NV.gather(1, self.ids_N[:, None]).squeeze(1)
        if name == "entropy":
            return _at_least_zero(-(self.logp_NV.exp() * self.logp_NV).sum(1))
        if name == "rank":
            own_N1 = self.logits_NV.gather(1, self.ids_N[:, None])
            return 1.0 + (self.logits_NV > own_N1).sum(1)
        if name == "entropy_top20":
            num = min(TOP, self.logits_NV.shape[1])
            logp_NK = self.logits_NV.topk(num).values.log_softmax(1).clamp(min=LOGP_FLOOR)
            return _at_least_zero(-(logp_NK.exp() * logp_NK).sum(1))
        if name.startswith("teacher_"):
            return self._of_teacher(name)
        if isinstance(self._teacher, SampledTeacher):
            if name != "kl_reverse":
                raise UserError(REVERSE_ALONE)
            logp_N = self.value("logp")
            gap_N = (logp_N - self._teacher.logq_N).detach()
            # The value is the gap, and its gradient that of gap x log p with the gap held fixed.
            return gap_N + gap_N * (logp_N - logp_N.detach())
        if isinstance(self._teacher, TopKTeacher):
            logp_NS, logq_NS = self._log_categories(self._teacher)
        else:
            logp_NS, logq_NS = self.shared_logp_NS, self.logq_NS
        if name == "kl_reverse":
            return _at_least_zero((logp_NS.exp() * (logp_NS - logq_NS)).sum(1))
        if name == "kl_forward":
            return _at_least_zero((logq_NS.exp() * (logq_NS - logp_NS)).sum(1))
        beta = jsd_beta(name)
        assert beta is not None, f"no such statistic: {name}"
        logm_NS = torch.logaddexp(logp_NS + math.log1p(-beta), logq_NS + math.log(beta))
        teacher_NS = beta * logq_NS.exp() * (logq_NS - logm_NS)
        student_NS = (1 - beta) * logp_NS.exp() * (logp_NS - logm_NS)
        return _at_least_zero((teacher_NS + student_NS).sum(1))

    def _of_teacher(self, name: str) -> Float[Tensor, " N"]:
        """A statistic of the teacher's distribution."""
        if name == "teacher_rank_of_argmax":
            if isinstance(self._teacher, TopKTeacher):
                return self._rank_among_few(self._teacher)
            best_N1 = self.shared_logp_NS.argmax(1, keepdim=True)
            return 1.0 + (self.logq_NS > self.logq_NS.gather(1, best_N1)).sum(1)
        if name == "teacher_entropy":
            return _at_least_zero(-(self.logq_NS.exp() * self.logq_NS).sum(1))
        assert name == "teacher_logp", f"no such statistic: {name}"
        if isinstance(self._teacher, SampledTeacher):
            return self._teacher.logq_N
        is_own_NS = torch.arange(self.logq_NS.shape[1], device=self.ids_N.device)
        return self.logq_NS.masked_fill(is_own_NS != self.ids_N[:, None], LOGP_FLOOR).amax(1)

    def _rank_among_few(self, teacher: TopKTeacher) -> Float[Tensor, " N"]:
        """Rank of the student's likeliest shared id among the teacher's K; K + 1 if it is none."""
        width = min(self._num_tokens, teacher.width or self._num_tokens)
        best_N1 = self.logits_NV[:, :width].argmax(1, keepdim=True)
        is_valid_NK = teacher.valid_NK(width)
        logq_NK = teacher.logq_NK.masked_fill(~is_valid_NK, -torch.inf)
        own_N1 = logq_NK.masked_fill(teacher.ids_NK != best_N1, -torch.inf).amax(1, keepdim=True)
        return 1.0 + (logq_NK > own_N1).sum(1)

    def _log_categories(
        self, teacher: TopKTeacher
    ) -> tuple[Float[Tensor, "N C"], Float[Tensor, "N C"]]:
        """Log-probabilities of both models of the teacher's ids, and of the rest in a bucket."""
        logp_NS = self.logp_NV
        if teacher.width is not None:
            logp_NS = _log_softmax(self.logits_NV[:, : teacher.width])
        num_shared = min(self._num_tokens, logp_NS.shape[1])
        logq_NC, is_whole_N = teacher.log_categories(num_shared, logp_NS.dtype)
        valid_NK = teacher.valid_NK(num_shared)
        # One column more takes the ids that do not count.
        id_NK = teacher.ids_NK.where(valid_NK, logp_NS.shape[1])
        in_top_NS = torch.zeros(len(logp_NS), logp_NS.shape[1] + 1, device=id_NK.device)
        in_top_NS = in_top_NS.scatter(1, id_NK, 1.0)[:, :-1].bool()
        padded_NS = torch.cat([logp_NS, torch.full_like(logp_NS[:, :1], LOGP_FLOOR)], 1)
        logp_NK = padded_NS.gather(1, id_NK)
        if teacher.tail == "renormalise":
            return _log_softmax(logp_NK).masked_fill(~valid_NK, LOGP_FLOOR), logq_NC
        rest_N = logp_NS.masked_fill(in_top_NS, LOGP_FLOOR).logsumexp(1)
        rest_N = rest_N.masked_fill(is_whole_N, LOGP_FLOOR)
        return torch.cat([logp_NK, rest_N[:, None]], 1), logq_NC

    def teacher_top_mass(self, num: int) -> Float[Tensor, " N"]:
        """The teacher's probability summed over the student's `num` likeliest ids."""
        num = min(num, self.logq_NS.shape[1])
        return self.logq_NS.exp().gather(1, self.shared_logp_NS.topk(num).indices).sum(1)

    def top_divergence(self, num: int) -> Float[Tensor, " N"]:
        """KL(teacher || student) over the union of both models' `num` likeliest shared ids."""
        num = min(num, self.logq_NS.shape[1])
        in_union_NS = torch.zeros_like(self.logq_NS, dtype=torch.bool)
        for model_NS in (self.shared_logp_NS, self.logq_NS):
            in_union_NS.scatter_(1, model_NS.topk(num).indices, True)
        logp_NS, logq_NS = (
            model_NS.masked_fill(~in_union_NS, LOGP_FLOOR).log_softmax(1)
            for model_NS in (self.shared_logp_NS, self.logq_NS)
        )
        return (logq_NS.exp() * (logq_NS - logp_NS)).sum(1).clamp(min=0)
