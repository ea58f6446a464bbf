"""A model's output head: from hidden states to logits, and from their gradient back to its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from reasontrain.types import Vocabulary

_TENSOR_CORES = (torch.bfloat16, torch.float16)
"""Dtypes that a GPU multiplies in its tensor cores with fp32 sums.

`out_dtype=torch.float32` returns those sums unrounded; torch supports it on CUDA only. All other
products are taken in fp32.
"""
PANEL_FLOATS = 2**21
"""Values of a weight that a CPU casts to fp32 at once: 8 MiB, which stay in its cache.

A cast of the whole weight, 0.5 GB for 152k x 896, takes as long as the product that it is for, most
of it for pages of memory that are touched once.
"""


def accumulation_dtype(tensor: Tensor) -> torch.dtype:
    """The dtype of sums over the vocabulary: fp32, or fp64 for fp64 inputs (tests)."""
    return torch.promote_types(tensor.dtype, torch.float32)


def uses_tensor_cores(factor: Tensor) -> bool:
    """True if a product with this factor is taken in half precision and summed in fp32."""
    return factor.is_cuda and factor.dtype in _TENSOR_CORES


def add_matmul(
    total: Float[Tensor, "I K"],
    left: Float[Tensor, "I J"],
    right: Float[Tensor, "J K"],
    *,
    first: bool = False,
) -> None:
    """total += left @ right, with the product and the sum in fp32.

    Args:
        total: the fp32 (or fp64) sum, changed in place.
        left: left factor; cast to the dtype of `right` on tensor cores.
        right: right factor; its dtype decides if tensor cores are used.
        first: overwrite `total`, which then need not be initialised.
    """
    beta = 0 if first else 1
    if total.is_cuda and right.dtype in _TENSOR_CORES:
        torch.addmm(
            total, left.to(right.dtype), right, out_dtype=torch.float32, beta=beta, out=total
        )
    elif right.dtype == total.dtype:
        total.addmm_(left.to(total.dtype), right, beta=beta)
    else:
        left = left.to(total.dtype)
        for rows, panel_PK in cast_panels(right, total.dtype):
            total.addmm_(left[:, rows], panel_PK, beta=beta)
            beta = 1


def matmul(
    left: Float[Tensor, "I J"],
    right: Float[Tensor, "J K"],
    out: Float[Tensor, "I K"] | None = None,
) -> Float[Tensor, "I K"]:
    """left @ right, multiplied and summed like `add_matmul`, in the memory of `out` if given."""
    if uses_tensor_cores(right):
        return torch.mm(left.to(right.dtype), right, out_dtype=torch.float32, out=out)
    dtype = accumulation_dtype(left)
    if out is None:
        out = left.new_empty(left.shape[0], right.shape[1], dtype=dtype)
    add_matmul(out, left, right, first=True)
    return out


def matmul_transposed(
    left: Float[Tensor, "I K"],
    right: Float[Tensor, "J K"],
    out: Float[Tensor, "I J"] | None = None,
) -> Float[Tensor, "I J"]:
    """left @ right^T, multiplied and summed like `add_matmul`, in the memory of `out` if given."""
    if uses_tensor_cores(right):
        return torch.mm(left.to(right.dtype), right.t(), out_dtype=torch.float32, out=out)
    left = left.to(accumulation_dtype(left))
    if right.dtype == left.dtype:
        return torch.mm(left, right.t(), out=out)
    if out is None:
        out = left.new_empty(left.shape[0], right.shape[0])
    for rows, panel_PK in cast_panels(right, left.dtype):
        torch.mm(left, panel_PK.t(), out=out[:, rows])
    return out


def cast_panels(
    weight_JK: Float[Tensor, "J K"], dtype: torch.dtype
) -> Iterator[tuple[slice, Float[Tensor, "P K"]]]:
    """Consecutive rows of a weight, cast into one buffer: each panel overwrites the one before."""
    size = max(1, PANEL_FLOATS // weight_JK.shape[1])
    buffer_PK = weight_JK.new_empty(min(size, len(weight_JK)), weight_JK.shape[1], dtype=dtype)
    for start in range(0, len(weight_JK), size):
        part_PK = weight_JK[start : start + size]
        panel_PK = buffer_PK[: len(part_PK)]
        yield slice(start, start + len(part_PK)), panel_PK.copy_(part_PK)


@dataclass(frozen=True, eq=False)
class Head:
    """logits = softcap * tanh(x / softcap) with x = scale * (h W^T + b); without a softcap, x.

    Attributes:
        weight_VD: the output matrix. A tied head passes the embedding matrix itself, and autograd
            adds both of its gradients.
        bias_V: the bias, or None.
        scale: multiplier of the logits (Cohere's `logit_scale`; the inverse of Granite's
            `logits_scaling`).
        softcap: Gemma's `final_logit_softcapping`, or None.
        matmul_dtype: dtype of matrix products, if it is not the weight's: bfloat16 with float32
            master weights.
        vocabulary: the backend for statistics and gradients when this head is the student's.
        num_tokens: rows of the weight that are tokens; the others have probability 0. None: all.
    """

    weight_VD: Float[Tensor, "V D"]
    bias_V: Float[Tensor, " V"] | None = None
    scale: float = 1.0
    softcap: float | None = None
    matmul_dtype: torch.dtype | None = None
    vocabulary: Vocabulary = "auto"
    num_tokens: int | None = None

    @cached_property
    def matmul_weight_VD(self) -> Float[Tensor, "V D"]:
        """The weight in the dtype of matrix products, cast once.

        It is detached: `HeadGradient` sums the gradient in fp32 for the original weight.
        """
        return self.weight_VD.detach().to(self.matmul_dtype or self.weight_VD.dtype)

    @property
    def width(self) -> int:
        """V, the number of logits, padding rows of the weight included."""
        return self.weight_VD.shape[0]

    def to(self, device: torch.device) -> Head:
        """A detached copy of the head on another device."""
        bias_V = None if self.bias_V is None else self.bias_V.detach().to(device)
        return replace(self, weight_VD=self.weight_VD.detach().to(device), bias_V=bias_V)

    @torch.no_grad()
    def logits(self, hidden_ND: Float[Tensor, "N D"]) -> Float[Tensor, "N V"]:
        """Logits in fp32 without temperature or gradient, for samplers: few positions at a time."""
        logits_NV = self.project(hidden_ND)
        self.transform_(logits_NV, temperature=1.0)
        return logits_NV

    def project(
        self, hidden_ND: Float[Tensor, "N D"], out_NV: Float[Tensor, "N V"] | None = None
    ) -> Float[Tensor, "N V"]:
        """h W^T + b in fp32, in the memory of `out_NV` if given."""
        raw_NV = matmul_transposed(hidden_ND, self.matmul_weight_VD, out_NV)
        return raw_NV if self.bias_V is None else raw_NV.add_(self.bias_V.detach())

    def transform_(
        self, raw_NV: Float[Tensor, "N V"], temperature: float
    ) -> Float[Tensor, "N V"] | None:
        """Turn h W^T + b into logits / temperature, in place; -inf at rows that are no tokens.

        Returns tanh(x / softcap), which the softcap's derivative needs, or None without a softcap.
        """
        tanh_NV = None
        if self.softcap is not None:
            tanh_NV = raw_NV.mul_(self.scale / self.softcap).tanh_().clone()
            raw_NV.mul_(self.softcap / temperature)
        elif self.scale != temperature:
            raw_NV.mul_(self.scale / temperature)
        if self.num_tokens is not None:
            raw_NV[:, self.num_tokens :] = -torch.inf
        return tanh_NV


@dataclass(frozen=True, eq=False)
class Teacher:
    """A frozen model at the student's positions: its hidden states, of its own width, and its head.

    It never receives a gradient.
    """

    hidden_ND: Float[Tensor, "N D"]
    head: Head

    @property
    def width(self) -> int:
        """Number of its ids, padding rows of the weight included."""
        return self.head.width

    def __getitem__(self, rows: Bool[Tensor, " N"]) -> Teacher:
        """The same at a subset of the positions."""
        return Teacher(self.hidden_ND[rows], self.head)


class HeadGradient:
    """Gradients of hidden states, weight and bias, summed over chunks of positions.

    Each position is added exactly once and the chunk at position 0 first: it overwrites the sums,
    so that nothing has to be set to zero.
    """

    def __init__(
        self, hidden_ND: Float[Tensor, "N D"], head: Head, *, hidden: bool, weight: bool, bias: bool
    ) -> None:
        """Reserve memory for the gradients that are needed.

        Args:
            hidden_ND: the hidden states that go through the head.
            head: the head.
            hidden: form the gradient of the hidden states.
            weight: form the gradient of the head's weight.
            bias: form the gradient of the head's bias.
        """
        self._weight_VD = head.matmul_weight_VD
        self.dhidden_ND = _uninitialised(hidden_ND, hidden)
        self.dweight_VD = _uninitialised(head.weight_VD, weight)
        self.dbias_V = _uninitialised(head.bias_V, bias)

    @property
    def needed(self) -> bool:
        """False if nothing requires a gradient; the gradient of the logits is not formed then."""
        return not (self.dhidden_ND is None and self.dweight_VD is None and self.dbias_V is None)

    @property
    def gradients(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """The gradients of hidden states, weight and bias; None for what needs none."""
        return self.dhidden_ND, self.dweight_VD, self.dbias_V

    def add(
        self, rows: slice, hidden_CD: Float[Tensor, "C D"], draw_CV: Float[Tensor, "C V"]
    ) -> None:
        """Add a chunk; `draw_CV` is the gradient with respect to h W^T + b at those positions."""
        # One cast to half precision can serve both products if both factors have that dtype.
        shared = uses_tensor_cores(hidden_CD) and hidden_CD.dtype == self._weight_VD.dtype
        factor_CV = draw_CV.to(hidden_CD.dtype) if shared else draw_CV
        if self.dhidden_ND is not None:
            add_matmul(self.dhidden_ND[rows], factor_CV, self._weight_VD, first=True)
        if self.dweight_VD is not None:
            add_matmul(self.dweight_VD, factor_CV.t(), hidden_CD, first=not rows.start)
        if self.dbias_V is not None:
            if not rows.start:
                self.dbias_V.zero_()
            self.dbias_V.add_(draw_CV.sum(0))


def _uninitialised(tensor: Tensor | None, needed: bool) -> Tensor | None:
    if tensor is None or not needed:
        return None
    return torch.empty_like(tensor, dtype=accumulation_dtype(tensor), requires_grad=False)
