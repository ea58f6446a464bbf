"""A row objective and its gradient in one pass: four matrix products per row where recomputing in
backward takes six.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from reasontrain.types import Losses, TokenFields, TokenStats
from reasontrain.vocab.chunks import Block, Scan
from reasontrain.vocab.full_logits import WholeDistribution
from reasontrain.vocab.head import Head, HeadGradient, Teacher

TokenObjective = Callable[[TokenStats, TokenFields], Losses]
"""One loss per row, from statistics of the policy at those rows and the batch's columns there."""


@dataclass(frozen=True, eq=False)
class Fused:
    """`loss` is sum_n coefficient_n * loss_n, with its gradient; `stats` are plain sums over the
    rows with a coefficient.
    """

    loss: Float[Tensor, ""]
    stats: Mapping[str, Float[Tensor, ""]]


def fused(
    hidden_ND: Float[Tensor, "N D"],
    head: Head,
    columns: TokenFields,
    coefficient_N: Float[Tensor, " N"],
    objective: TokenObjective,
    *,
    temperature: float = 1.0,
    teacher: Teacher | None = None,
    chunk: int | None = None,
) -> Fused:
    """Evaluate the objective at N rows, and form dHidden, dW and dBias at once, because the
    coefficients are known.

    hidden_ND: the student's states that predict `columns.ids_N`, in any float dtype; teacher: its
    states at the same rows. temperature divides both models' logits. chunk: rows per matrix
    product; the default keeps a chunk at 2^24 numbers on a CPU and 2^26 on a GPU. Nothing of size N
    x V is made, unless the head says `whole`. A row with coefficient zero has a gradient of exactly
    zero, whatever it holds. With N = 0 the loss is a zero that runs backward. A frozen head or
    state is skipped.

    Raises UserError where the objective asks for a divergence and there is no teacher.
    """
    if head.vocabulary == "full_logits":
        return _whole(hidden_ND, head, columns, coefficient_N, objective, temperature, teacher)
    tracking = torch.is_grad_enabled()
    weight_VD, bias_V = head.weight_VD, head.bias_V
    gradient = HeadGradient(
        hidden_ND,
        head,
        hidden=tracking and hidden_ND.requires_grad,
        weight=tracking and weight_VD.requires_grad,
        bias=tracking and bias_V is not None and bias_V.requires_grad,
    )
    scan = Scan(
        hidden_ND, head, columns.ids_N, temperature, teacher, chunk, keep_N=coefficient_N != 0
    )
    sums: dict[str, Tensor] = {}
    with torch.no_grad(), torch.autocast(hidden_ND.device.type, enabled=False):
        for part in scan.chunks():
            for block in part.blocks():
                row_sums = _evaluate(
                    block,
                    columns[block.rows],
                    coefficient_N[block.rows],
                    objective,
                    with_gradient=gradient.needed,
                )
                sums = {
                    name: sums[name] + value if name in sums else value
                    for name, value in row_sums.items()
                }
            if gradient.needed:
                gradient.add(part.rows, part.hidden_CD, part.raw_CV)
    loss = sums.pop(_LOSS)
    if gradient.needed:
        loss = KnownGradient.apply(loss, gradient.all, hidden_ND, weight_VD, bias_V)
    return Fused(loss=loss, stats=sums)


def _whole(
    hidden_ND: Float[Tensor, "N D"],
    head: Head,
    columns: TokenFields,
    coefficient_N: Float[Tensor, " N"],
    objective: TokenObjective,
    temperature: float,
    teacher: Teacher | None,
) -> Fused:
    """The same by autograd, of the rows with a coefficient."""
    keep_N = coefficient_N != 0
    columns, coefficient_K = columns[keep_N], coefficient_N[keep_N]
    if teacher is not None:
        teacher = Teacher(teacher.hidden_ND[keep_N], teacher.head)
    with torch.autocast(hidden_ND.device.type, enabled=False):
        distribution = WholeDistribution(
            hidden_ND[keep_N], head, columns.ids_N, temperature, teacher
        )
        losses = objective(TokenStats(cache(distribution.value)), columns)
        loss = (coefficient_K * losses.loss).sum()
    stats = {
        name: value_K.detach().to(coefficient_N.dtype).sum()
        for name, value_K in losses.stats.items()
    }
    return Fused(loss=loss, stats=stats)


_LOSS = ""
"""The loss's own key among the sums; no objective names a statistic so."""


def _evaluate(
    block: Block,
    columns: TokenFields,
    coefficient_N: Float[Tensor, " N"],
    objective: TokenObjective,
    *,
    with_gradient: bool,
) -> dict[str, Float[Tensor, ""]]:
    """Sums over the block's rows; the block's projection becomes its gradient.

    The objective is differentiated with respect to the statistics it asked for, N numbers each; the
    rest is in closed form.
    """
    leaves: dict[str, Tensor] = {}

    def statistic(name: str) -> Tensor:
        if name not in leaves:
            leaves[name] = block.distribution.value(name).detach().requires_grad_(with_gradient)
        return leaves[name]

    keep_N = coefficient_N != 0
    with torch.set_grad_enabled(with_gradient):
        losses = objective(TokenStats(statistic), columns)
        weighted_N = torch.where(keep_N, coefficient_N * losses.loss, 0)
        total = weighted_N.sum()
    if with_gradient:
        stat_grads = (
            torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
            if total.requires_grad
            else ()
        )
        block.write_gradient(
            {
                name: slope_N.masked_fill(~keep_N, 0)
                for name, slope_N in zip(leaves, stat_grads, strict=False)
                if slope_N is not None
            }
        )
    dtype = coefficient_N.dtype
    stats = {
        name: torch.where(keep_N, value_N.detach().to(dtype), 0).sum()
        for name, value_N in losses.stats.items()
    }
    return {_LOSS: total.detach(), **stats}


class KnownGradient(torch.autograd.Function):
    """A number whose gradient was formed together with it: backward multiplies, in place, and can
    therefore run once only.
    """

    @staticmethod
    def forward(ctx, loss, known, *tensors):  # type: ignore[no-untyped-def]
        """Keep the gradient with respect to each tensor beside the loss; None where there is none."""
        ctx.known = known
        ctx.dtypes = tuple(None if tensor is None else tensor.dtype for tensor in tensors)
        return loss.clone()

    @staticmethod
    def backward(ctx, outer):  # type: ignore[no-untyped-def]
        """The known gradient times the incoming one."""
        known, ctx.known = ctx.known, None
        assert known is not None, "the gradient of a fused loss is used up by its first backward"
        same = outer.device.type == "cpu" and bool(
            outer == 1
        )  # as it mostly is; a GPU would have to be waited for
        factor = (None if d is None else d if same else d.mul_(outer) for d in known)
        scaled = (
            None if d is None else d.to(dtype) for d, dtype in zip(factor, ctx.dtypes, strict=True)
        )
        return None, None, *scaled
