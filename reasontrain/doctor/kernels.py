"""Kernels: their rates, and their results beside a reference."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from reasontrain.doctor.finding import Finding
from reasontrain.metrics.throughput import matrix_rate
from reasontrain.models.kernels import choose_sdpa_kernels
from reasontrain.vocab import Head, Teacher, measure
from reasontrain.vocab.backend import uses_triton

VOCABULARY = 151_936
"""Qwen's, whose tail is no multiple of a kernel's tile."""
NAMES = ("logp", "entropy", "kl_reverse", "kl_forward")
RATES = {"H100": 600e12, "H200": 600e12, "B200": 1200e12, "A100": 200e12}
"""Least rate of bfloat16 products, in operations per second: two thirds of the data sheet's."""
TOLERANCE = 1e-4
"""Largest difference of statistics in float32, in nats."""


def matrix_products(device: torch.device) -> Iterator[Finding]:
    """The rate of bfloat16 and float32 products."""
    rates = {dtype: matrix_rate(device, dtype) for dtype in (torch.bfloat16, torch.float32)}
    detail = ", ".join(f"{str(t)[6:]} {rate / 1e12:.3g} TFLOP/s" for t, rate in rates.items())
    least = 0.0
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        least = next((rate for model, rate in RATES.items() if model in name), 0.0)
    else:
        least = 0.5 * rates[torch.float32]
    low = rates[torch.bfloat16] < least
    mend = "other work on the device, its power limit, or a CPU without bfloat16 (model.dtype)"
    yield Finding(
        name="matrix products",
        status="slow" if low else "ok",
        detail=detail,
        mend=mend if low else "",
    )


def attention(device: torch.device) -> Iterator[Finding]:
    """The kernels that torch may choose, and their result and gradient beside plain softmax."""
    enabled = choose_sdpa_kernels()
    draw = torch.Generator(device).manual_seed(0)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    query, key, value = (
        torch.randn(2, 4, 704, 64, generator=draw, device=device).to(dtype).requires_grad_()
        for _ in range(3)
    )
    out = scaled_dot_product_attention(query, key, value, is_causal=True)
    reference = _plain_attention(query, key, value)
    gradients = torch.autograd.grad(out.float().square().sum(), (query, key, value))
    largest = float((out.detach().float() - reference).abs().max())
    finite = all(bool(gradient.isfinite().all()) for gradient in gradients)
    right = finite and largest < (0.02 if dtype == torch.bfloat16 else 1e-4)
    yield Finding(
        name="attention",
        status="ok" if right else "broken",
        detail=f"torch may choose {', '.join(enabled)}; differs from softmax by {largest:.1e}"
        + ("" if finite else "; its gradient is not finite"),
        mend="" if right else "set model.attention: eager, and report the device",
    )


def vocabulary(device: torch.device) -> Iterator[Finding]:
    """Statistics over a vocabulary of 151,936 by the backend of training, and by all logits."""
    draw = torch.Generator(device).manual_seed(0)
    hidden_ND, other_ND = (
        torch.randn(64, 128, generator=draw, device=device) / 128**0.5 for _ in range(2)
    )
    weight_VD = 3.0 * torch.randn(VOCABULARY, 128, generator=draw, device=device)
    ids_N = torch.randint(VOCABULARY, (64,), generator=draw, device=device)
    head = Head(weight_VD)
    start = time.perf_counter()
    fast = _statistics(hidden_ND, other_ND, ids_N, head)
    seconds = time.perf_counter() - start
    slow = _statistics(hidden_ND, other_ND, ids_N, replace(head, vocabulary="full_logits"))
    largest = max(float((fast[name] - slow[name]).abs().max()) for name in NAMES)
    backend = "Triton" if uses_triton(head.vocabulary, device) else "torch"
    yield Finding(
        name="vocabulary",
        status="ok" if largest < TOLERANCE else "broken",
        detail=f"{backend}: 64 positions of {VOCABULARY:,} logits in {1000 * seconds:.0f} ms, "
        f"within {largest:.1e} nats of all logits",
        mend="" if largest < TOLERANCE else "set model.vocabulary: torch, and report the device",
    )


@torch.no_grad()
def _statistics(
    hidden_ND: Tensor, other_ND: Tensor, ids_N: Tensor, head: Head
) -> dict[str, Tensor]:
    teacher = Teacher(other_ND, head)
    return dict(measure(hidden_ND, head, ids_N, NAMES, temperature=1.0, teacher=teacher))


def _plain_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Causal attention in float32 by all scores."""
    scores = query.float() @ key.float().transpose(-1, -2) / query.shape[-1] ** 0.5
    sees = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    result: Tensor = scores.masked_fill(~sees, -torch.inf).softmax(-1) @ value.float()
    return result.detach()
