"""Differentiable log-probabilities for sequence objectives.

Their gradient depends on sums over whole responses, so the logits are recomputed in backward.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from reasontrain.types import Vocabulary
from reasontrain.vocab.chunks import ChunkedLogits
from reasontrain.vocab.full_logits import FullLogitsDistribution
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
    """log p(id) at N positions, differentiable with respect to hidden states, weight and bias.

    Saves nothing as wide as the vocabulary. Positions are not masked: leave out those whose hidden
    states may overflow.

    Args:
        hidden_ND: hidden states that predict `ids_N`.
        head: the head.
        ids_N: the token at each position.
        temperature: divides the logits.
        chunk: positions per matrix product; None chooses by memory.

    Returns:
        Log-probabilities in nats.
    """
    if head.vocabulary == "full_logits":
        with torch.autocast(hidden_ND.device.type, enabled=False):
            return FullLogitsDistribution(hidden_ND, head, ids_N, temperature, None).value("logp")
    return _LogProb.apply(
        hidden_ND,
        head.weight_VD,
        head.bias_V,
        ids_N,
        _HeadSettings(
            head.scale, head.softcap, head.matmul_dtype, head.vocabulary, head.num_tokens
        ),
        temperature,
        chunk,
    )


class _HeadSettings(NamedTuple):
    """The fields of a Head that are not tensors, in order."""

    scale: float
    softcap: float | None
    matmul_dtype: torch.dtype | None
    vocabulary: Vocabulary
    num_tokens: int | None


class _LogProb(torch.autograd.Function):
    """log p(id), with its inputs saved and its logits recomputed in backward.

    Weight and bias are arguments of their own, because autograd tracks tensors only there.
    """

    @staticmethod
    def forward(ctx, *inputs):  # type: ignore[no-untyped-def]
        """Compute log p(id) and save the inputs."""
        hidden_ND, weight_VD, bias_V, ids_N, head_settings, temperature, chunk = inputs
        ctx.save_for_backward(hidden_ND, weight_VD, bias_V, ids_N)
        ctx.settings = (head_settings, temperature, chunk)
        head = Head(weight_VD, bias_V, *head_settings)
        return measure(hidden_ND, head, ids_N, ("logp",), temperature=temperature, chunk=chunk)[
            "logp"
        ]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_N):  # type: ignore[no-untyped-def]
        """Chunk by chunk: grad * (1[token] - p), back through the head."""
        hidden_ND, weight_VD, bias_V, ids_N = ctx.saved_tensors
        head_settings, temperature, chunk = ctx.settings
        head = Head(weight_VD, bias_V, *head_settings)
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        gradient = HeadGradient(
            hidden_ND, head, hidden=needs_hidden, weight=needs_weight, bias=needs_bias
        )
        with torch.autocast(hidden_ND.device.type, enabled=False):
            for part in ChunkedLogits(hidden_ND, head, ids_N, temperature, chunk=chunk).chunks():
                for block in part.blocks():
                    block.write_gradient({"logp": grad_N[block.rows]})
                gradient.add(part.rows, part.hidden_CD, part.raw_CV)
        cast = (
            None if d is None else d.to(tensor.dtype)
            for d, tensor in zip(gradient.gradients, (hidden_ND, weight_VD, bias_V), strict=True)
        )
        return (*cast, None, None, None, None)
