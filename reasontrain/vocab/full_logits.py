"""The plain twin: logits whole, statistics as their formulas say, gradients by autograd.

N x V many times over.
"""

from __future__ import annotations

import math
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from reasontrain.types import UserError
from reasontrain.vocab.analytic import FLOOR, NO_TEACHER, beta_of, plain_name
from reasontrain.vocab.head import Head, Teacher, wide


def logits(
    hidden_ND: Float[Tensor, "N D"], head: Head, temperature: float = 1.0
) -> Float[Tensor, "N V"]:
    """softcap * tanh(x / softcap) / temperature with x = scale * (h W^T + b), in fp32 of factors as
    products take them.
    """
    dtype = wide(hidden_ND)
    weight_VD = head.weight_VD.to(head.product_dtype or head.weight_VD.dtype).to(dtype)
    x_NV = hidden_ND.to(dtype) @ weight_VD.t()
    x_NV = head.scale * (x_NV if head.bias_V is None else x_NV + head.bias_V)
    return (
        x_NV if head.softcap is None else head.softcap * torch.tanh(x_NV / head.softcap)
    ) / temperature


def _log_softmax(logits_NV: Float[Tensor, "N V"]) -> Float[Tensor, "N V"]:
    return torch.log_softmax(logits_NV, -1).clamp(min=FLOOR)


def _at_least_zero(value_N: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
    """What rounding made negative is 0, with the gradient that it has anyway."""
    return value_N + (value_N.clamp(min=0) - value_N).detach()


class WholeDistribution:
    """The student's distribution at all rows, and the teacher's where a divergence is asked for,
    over the ids that they share.
    """

    def __init__(
        self,
        hidden_ND: Float[Tensor, "N D"],
        head: Head,
        ids_N: Int[Tensor, " N"],
        temperature: float,
        teacher: Teacher | None,
    ) -> None:
        self.ids_N, self._temperature, self._teacher = ids_N, temperature, teacher
        self.logits_NV = logits(hidden_ND, head, temperature)

    @cached_property
    def logp_NV(self) -> Float[Tensor, "N V"]:
        """The student."""
        return _log_softmax(self.logits_NV)

    @cached_property
    def logq_NS(self) -> Float[Tensor, "N S"]:
        """The teacher over the shared ids."""
        if self._teacher is None:
            raise UserError(NO_TEACHER)
        with torch.no_grad():
            logits_NU = logits(self._teacher.hidden_ND, self._teacher.head, self._temperature)
            return _log_softmax(logits_NU[:, : self.logits_NV.shape[1]])

    @cached_property
    def shared_logp_NS(self) -> Float[Tensor, "N S"]:
        """The student over the shared ids."""
        width = self.logq_NS.shape[1]
        return (
            self.logp_NV
            if width == self.logits_NV.shape[1]
            else _log_softmax(self.logits_NV[:, :width])
        )

    def value(self, name: str) -> Float[Tensor, " N"]:
        """A statistic by name (see `types.TokenStats`), differentiable."""
        name = plain_name(name)
        if name == "logp":
            return self.logp_NV.gather(1, self.ids_N[:, None]).squeeze(1)
        if name == "entropy":
            return _at_least_zero(-(self.logp_NV.exp() * self.logp_NV).sum(1))
        p, q = self.shared_logp_NS, self.logq_NS
        if name == "kl_reverse":
            return _at_least_zero((p.exp() * (p - q)).sum(1))
        if name == "kl_forward":
            return _at_least_zero((q.exp() * (q - p)).sum(1))
        beta = beta_of(name)
        assert beta is not None, f"no such statistic: {name}"
        m = torch.logaddexp(p + math.log1p(-beta), q + math.log(beta))
        return _at_least_zero((beta * q.exp() * (q - m) + (1 - beta) * p.exp() * (p - m)).sum(1))

    def teacher_mass_on_top(self, num: int) -> Float[Tensor, " N"]:
        """The teacher's probability summed over the `num` ids that the student finds likeliest."""
        num = min(num, self.logq_NS.shape[1])
        return self.logq_NS.exp().gather(1, self.shared_logp_NS.topk(num).indices).sum(1)
