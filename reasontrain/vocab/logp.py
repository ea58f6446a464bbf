"""Differentiable log-probabilities for sum objectives, whose slope is not known before all rows are
seen.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from reasontrain.types import Vocabulary
from reasontrain.vocab.chunks import Scan
from reasontrain.vocab.full_logits import WholeDistribution
from reasontrain.vocab.head import Head, HeadGradient
from reasontrain.vocab.statistics import measure


def logp(
    hidden_ND: Float[Tensor, "N D"],
    head: Head,
    ids_N: Int[Tensor, " N"],
    *,
    temperature: float = 1.0,
    chunk: int | None = None,
) -> Float[Tensor, " N"]:
    """log p(id) at N rows, in nats, with a gradient for states, weight and bias; the logits are
    made again in backward.

    Rows come as they are: a row whose states may overflow must be gathered away before.
    """
    if head.vocabulary == "full_logits":
        with torch.autocast(hidden_ND.device.type, enabled=False):
            return WholeDistribution(hidden_ND, head, ids_N, temperature, None).value("logp")
    return _LogProb.apply(
        hidden_ND,
        head.weight_VD,
        head.bias_V,
        ids_N,
        _Transforms(head.scale, head.softcap, head.product_dtype, head.vocabulary),
        temperature,
        chunk,
    )


class _Transforms(NamedTuple):
    """What a Head is beside its tensors."""

    scale: float
    softcap: float | None
    product_dtype: torch.dtype | None
    vocabulary: Vocabulary


class _LogProb(torch.autograd.Function):
    """Saves what it was given and nothing as wide as the vocabulary."""

    @staticmethod
    def forward(ctx, hidden_ND, weight_VD, bias_V, ids_N, transforms, temperature, chunk):  # type: ignore[no-untyped-def]
        """Measure, and remember where."""
        ctx.save_for_backward(hidden_ND, weight_VD, bias_V, ids_N)
        ctx.settings = (transforms, temperature, chunk)
        head = Head(weight_VD, bias_V, *transforms)
        return measure(hidden_ND, head, ids_N, ("logp",), temperature=temperature, chunk=chunk)[
            "logp"
        ]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, slope_N):  # type: ignore[no-untyped-def]
        """Chunk by chunk: slope * (1[token] - p), back through the head."""
        hidden_ND, weight_VD, bias_V, ids_N = ctx.saved_tensors
        transforms, temperature, chunk = ctx.settings
        head = Head(weight_VD, bias_V, *transforms)
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        gradient = HeadGradient(
            hidden_ND, head, hidden=needs_hidden, weight=needs_weight, bias=needs_bias
        )
        with torch.autocast(hidden_ND.device.type, enabled=False):
            for part in Scan(hidden_ND, head, ids_N, temperature, chunk=chunk).chunks():
                for block in part.blocks():
                    block.write_gradient({"logp": slope_N[block.rows]})
                gradient.add(part.rows, part.hidden_CD, part.raw_CV)
        known = zip(
            (gradient.dhidden_ND, gradient.dweight_VD, gradient.dbias_V),
            (hidden_ND, weight_VD, bias_V),
            strict=True,
        )
        return (
            *(None if d is None else d.to(tensor.dtype) for d, tensor in known),
            None,
            None,
            None,
            None,
        )
