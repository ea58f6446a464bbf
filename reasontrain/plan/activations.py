"""Bytes of activations that autograd saves in a forward pass, tensor by tensor.

The table is for a layer of a Llama or Qwen under sdpa or flash attention, which never store the T x
T probabilities (Dao et al. 2022), in bytes per token. d, f, q, k are the widths of the residual
stream, of the feed-forward part, of all queries and of all keys; h is the number of heads. The
columns are float32, bfloat16 under autocast, and bfloat16 weights.

    tensors                                    float32            autocast           bfloat16
    each of two norms: input, normed, 1/rms    8 d + 4            8 d + 4            6 d + 4
    inputs of q, k, v and of gate, up          4 d per norm       2 d per matrix     2 d per norm
    queries, keys, values, output, logsumexp   4 (2 q + 2 k + h)  4 (q + k + h)      4 (q + k + h)
    Qwen3's norms of queries and keys          8 (q + k)          6 (q + k)          6 (q + k)
                                               + 4 heads          + 4 heads          + 4 heads
    gate, silu(gate), up, product              16 f               8 f                8 f

Korthikanti et al. 2022 (arXiv 2205.05198) count the same way for GPT.
`tests/plan/test_activations.py` compares with the tensors that torch saves.
"""

from __future__ import annotations

from typing import Literal

from reasontrain.models import Shape
from reasontrain.plan.shape import width_k, width_q

Mode = Literal["float32", "autocast", "bfloat16"]
"""Numerics of weights and products.

`float32` throughout; `autocast`, bfloat16 products with float32 weights (without ZeRO); `bfloat16`,
bfloat16 weights (under ZeRO).
"""


def number(mode: Mode) -> int:
    """Bytes per element of the output of a matrix product."""
    return 4 if mode == "float32" else 2


def residual(mode: Mode) -> int:
    """Bytes per element of the residual stream, which stays in float32 under autocast."""
    return 2 if mode == "bfloat16" else 4


def per_layer(
    shape: Shape, mode: Mode, *, eager_length: int = 0, lora_rank: int = 0, lora_targets: int = 0
) -> int:
    """Bytes that autograd saves of one layer, per token.

    Args:
        shape: sizes of the model.
        mode: dtype of weights and products.
        eager_length: tokens of a sequence under eager attention, which saves its probabilities
            twice (as the softmax returns them and as the product takes them) and repeats keys and
            values for every head; 0 under a fused kernel.
        lora_rank: rank of the adapters; 0 without adapters.
        lora_targets: number of adapted matrices.

    Returns:
        Bytes per token.
    """
    d = shape.hidden_size
    f = shape.intermediate_size
    q = width_q(shape)
    k = width_k(shape)
    h = shape.num_heads
    wide = number(mode)
    norms = 2 * ((6 if mode == "bfloat16" else 8) * d + 4)
    inputs = {"float32": 2 * 4 * d, "autocast": 5 * 2 * d, "bfloat16": 2 * 2 * d}[mode]
    attention = wide * (2 * q + 2 * k) + 4 * h
    if eager_length:
        attention = wide * (2 * q + 2 * q) + h * eager_length * (4 + (wide if wide != 4 else 0))
    if shape.qk_norm:
        attention += (8 if mode == "float32" else 6) * (q + k) + 4 * (h + shape.num_kv_heads)
    return norms + inputs + attention + wide * (4 * f + lora_rank * lora_targets)


def outside_layers(shape: Shape, mode: Mode) -> int:
    """Bytes per token of ids, rotary tables and the last norm."""
    d = shape.hidden_size
    return 8 + 2 * residual(mode) * shape.head_dim + (6 if mode == "bfloat16" else 8) * d + 4


def kept(shape: Shape, mode: Mode, layer_bytes: int, *, checkpointing: bool) -> int:
    """Bytes per token that are held between forward and backward.

    Args:
        shape: sizes of the model.
        mode: dtype of weights and products.
        layer_bytes: bytes that autograd saves of one layer, per token.
        checkpointing: True if only the input of every layer is saved (Chen et al. 2016).

    Returns:
        Bytes per token.
    """
    per = residual(mode) * shape.hidden_size if checkpointing else layer_bytes
    return shape.num_layers * per + outside_layers(shape, mode)


def passing(shape: Shape, mode: Mode) -> int:
    """Peak bytes per token of a forward without gradients.

    The peak holds the residual, its norm, silu(gate), up and their product.
    """
    return 2 * residual(mode) * shape.hidden_size + 3 * number(mode) * shape.intermediate_size


def returning(shape: Shape, mode: Mode) -> int:
    """Peak bytes per token of gradients inside one layer.

    The peak holds the gradients of the product, silu(gate), up and the residual.
    """
    return residual(mode) * shape.hidden_size + 3 * number(mode) * shape.intermediate_size
