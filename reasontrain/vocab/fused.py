"""A token objective and its gradient in one pass over the vocabulary.

Takes four matrix products per position; recomputing the logits in backward takes six.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from reasontrain.types import Losses, TokenFields, TokenStats
from reasontrain.vocab.chunks import Block, ChunkedLogits
from reasontrain.vocab.full_logits import FullLogitsDistribution
from reasontrain.vocab.head import Head, HeadGradient
from reasontrain.vocab.mixture import AnyTeacher

TokenObjective = Callable[[TokenStats, TokenFields], Losses]
"""One loss per position, from the policy's statistics and the batch's fields there."""


@dataclass(frozen=True, eq=False)
class Fused:
    """The result of `fused`.

    `loss` is sum_n loss_weight_n * loss_n and carries its gradient. `stats` are the objective's
    observations, summed over the positions with a loss weight.
    """

    loss: Float[Tensor, ""]
    stats: Mapping[str, Float[Tensor, ""]]


def fused(
    hidden_ND: Float[Tensor, "N D"],
    head: Head,
    fields: TokenFields,
    loss_weight_N: Float[Tensor, " N"],
    objective: TokenObjective,
    *,
    temperature: float = 1.0,
    teacher: AnyTeacher | None = None,
    chunk: int | None = None,
) -> Fused:
    """Evaluate the objective at N positions and form its gradients in the same pass.

    That is possible because the loss weights are known beforehand. Nothing of size N x V exists,
    unless the head's backend is `full_logits`. Gradients are formed only for what requires one.

    Args:
        hidden_ND: the student's hidden states that predict `fields.ids_N`, in any float dtype.
        head: the student's head; gradients go to its weight and bias.
        fields: ids, advantages and evidence at the N positions.
        loss_weight_N: factor of each loss. Where it is zero, the gradient is exactly zero, even if
            the hidden state or the loss is not finite.
        objective: maps statistics and fields to one loss per position.
        temperature: divides the logits of both models.
        teacher: the teacher's hidden states at the same positions, and its head, or its
            log-probabilities of a few ids there (see `top_k`).
        chunk: positions per matrix product; None keeps a chunk at 2^24 logits on a CPU and 2^26 on
            a GPU.

    Returns:
        The weighted sum of losses, with its gradient, and the summed observations. With N = 0 the
        loss is 0 and its backward works.

    Raises:
        UserError: the objective needs a divergence, and there is no teacher.
    """
    if head.vocabulary == "full_logits":
        return _full_logits_loss(
            hidden_ND, head, fields, loss_weight_N, objective, temperature, teacher
        )
    tracking = torch.is_grad_enabled()
    weight_VD = head.weight_VD
    bias_V = head.bias_V
    gradient = HeadGradient(
        hidden_ND,
        head,
        hidden=tracking and hidden_ND.requires_grad,
        weight=tracking and weight_VD.requires_grad,
        bias=tracking and bias_V is not None and bias_V.requires_grad,
    )
    logits = ChunkedLogits(
        hidden_ND, head, fields.ids_N, temperature, teacher, chunk, keep_N=loss_weight_N != 0
    )
    sums: dict[str, Tensor] = {}
    with torch.no_grad(), torch.autocast(hidden_ND.device.type, enabled=False):
        for part in logits.chunks():
            for block in part.blocks():
                block_sums = _evaluate(
                    block,
                    fields[block.rows],
                    loss_weight_N[block.rows],
                    objective,
                    with_gradient=gradient.needed,
                )
                sums = {
                    name: sums[name] + value if name in sums else value
                    for name, value in block_sums.items()
                }
            # By now every block has overwritten its part of raw_CV with d loss / d raw.
            if gradient.needed:
                gradient.add(part.rows, part.hidden_CD, part.raw_CV)
    loss = sums.pop(_LOSS)
    if gradient.needed:
        loss = PrecomputedGradient.apply(loss, gradient.gradients, hidden_ND, weight_VD, bias_V)
    return Fused(loss=loss, stats=sums)


def _full_logits_loss(
    hidden_ND: Float[Tensor, "N D"],
    head: Head,
    fields: TokenFields,
    loss_weight_N: Float[Tensor, " N"],
    objective: TokenObjective,
    temperature: float,
    teacher: AnyTeacher | None,
) -> Fused:
    """The same loss by autograd, at the K positions with a loss weight."""
    keep_N = loss_weight_N != 0
    fields = fields[keep_N]
    if teacher is not None:
        teacher = teacher[keep_N]
    with torch.autocast(hidden_ND.device.type, enabled=False):
        distribution = FullLogitsDistribution(
            hidden_ND[keep_N], head, fields.ids_N, temperature, teacher
        )
        losses = objective(TokenStats(cache(distribution.value)), fields)
        loss = (loss_weight_N[keep_N] * losses.loss).sum()
    stats = {
        name: value_K.detach().to(loss_weight_N.dtype).sum()
        for name, value_K in losses.stats.items()
    }
    return Fused(loss=loss, stats=stats)


_LOSS = ""
"""Key of the loss among the sums; no metric of an objective has this name."""


def _evaluate(
    block: Block,
    fields: TokenFields,
    loss_weight_N: Float[Tensor, " N"],
    objective: TokenObjective,
    *,
    with_gradient: bool,
) -> dict[str, Float[Tensor, ""]]:
    """Sums over the block's positions; overwrites the block's projection with its gradient."""
    # The statistics that the objective reads become leaves of a small graph, N numbers each.
    # Autograd differentiates the objective with respect to them, and the block continues
    # analytically.
    leaves: dict[str, Tensor] = {}

    def statistic(name: str) -> Tensor:
        if name not in leaves:
            leaves[name] = block.distribution.value(name).detach().requires_grad_(with_gradient)
        return leaves[name]

    keep_N = loss_weight_N != 0
    with torch.set_grad_enabled(with_gradient):
        losses = objective(TokenStats(statistic), fields)
        # where, and not a product with zero: 0 * inf would be NaN.
        weighted_N = torch.where(keep_N, loss_weight_N * losses.loss, 0)
        total = weighted_N.sum()
    if with_gradient:
        stat_grads = (
            torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
            if total.requires_grad
            else ()
        )
        block.write_gradient(
            {
                name: grad_N.masked_fill(~keep_N, 0)
                for name, grad_N in zip(leaves, stat_grads, strict=False)
                if grad_N is not None
            }
        )
    dtype = loss_weight_N.dtype
    stats = {
        name: torch.where(keep_N, value_N.detach().to(dtype), 0).sum()
        for name, value_N in losses.stats.items()
    }
    return {_LOSS: total.detach(), **stats}


class PrecomputedGradient(torch.autograd.Function):
    """A scalar whose gradients were computed together with it.

    Backward scales them in place, so it runs once only.
    """

    @staticmethod
    def forward(ctx, loss, gradients, *tensors):  # type: ignore[no-untyped-def]
        """Save the gradient of each tensor for backward; None where a tensor has none."""
        ctx.gradients = gradients
        ctx.dtypes = tuple(None if tensor is None else tensor.dtype for tensor in tensors)
        return loss.clone()

    @staticmethod
    def backward(ctx, outer):  # type: ignore[no-untyped-def]
        """The saved gradients times the incoming one, in the dtype of each tensor."""
        gradients = ctx.gradients
        ctx.gradients = None
        assert gradients is not None, (
            "the gradient of a fused loss is used up by its first backward"
        )
        # Usually outer is 1. It is compared on CPUs only: reading it would synchronise a GPU.
        is_one = outer.device.type == "cpu" and bool(outer == 1)
        scaled = (None if d is None else d if is_one else d.mul_(outer) for d in gradients)
        cast = (
            None if d is None else d.to(dtype) for d, dtype in zip(scaled, ctx.dtypes, strict=True)
        )
        return None, None, *cast
