"""The output head of a model: from hidden states to logits and, backwards, from the logits'
gradient to its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from reasontrain.types import Vocabulary

_TENSOR_CORES = (torch.bfloat16, torch.float16)


def wide(tensor: Tensor) -> torch.dtype:
    """What is computed over the vocabulary: fp32, or fp64 where the input is (tests)."""
    return torch.promote_types(tensor.dtype, torch.float32)


def takes_product(factor: Tensor) -> bool:
    """Whether a product with this factor is taken in half precision and summed in fp32."""
    return factor.is_cuda and factor.dtype in _TENSOR_CORES


def add_product(
    total: Float[Tensor, "I K"],
    left: Float[Tensor, "I J"],
    right: Float[Tensor, "J K"],
    *,
    first: bool = False,
) -> None:
    """total += left @ right, where `total` is fp32 and stays so: half-precision products are summed
    in fp32 too.

    The `first` product is written over what `total` holds, which need not have been zeroed.
    """
    beta = 0 if first else 1
    if total.is_cuda and right.dtype in _TENSOR_CORES:
        torch.addmm(
            total, left.to(right.dtype), right, out_dtype=torch.float32, beta=beta, out=total
        )
    else:
        total.addmm_(left.to(total.dtype), right.to(total.dtype), beta=beta)


@dataclass(frozen=True, eq=False)
class Head:
    """logits = softcap * tanh(x / softcap) with x = scale * (h W^T + b); without a softcap, logits
    = x.

    A tied head passes the embedding matrix itself: autograd then adds both of its gradients.
    `scale` is a multiplier (Cohere's `logit_scale`; the inverse of Granite's `logits_scaling`),
    `softcap` is Gemma's `final_logit_softcapping`. `product_dtype` is that of the products where it
    is not the weight's: bfloat16 beside a float32 master. `vocabulary` says by what the logits of
    this head, as a student, become statistics and a gradient.
    """

    weight_VD: Float[Tensor, "V D"]
    bias_V: Float[Tensor, " V"] | None = None
    scale: float = 1.0
    softcap: float | None = None
    product_dtype: torch.dtype | None = None
    vocabulary: Vocabulary = "auto"

    @cached_property
    def product_VD(self) -> Float[Tensor, "V D"]:
        """The weight as matrix products take it, cast once; its own gradient is summed for the
        weight itself, in fp32.
        """
        return self.weight_VD.detach().to(self.product_dtype or self.weight_VD.dtype)

    @property
    def width(self) -> int:
        """V, padding rows included."""
        return self.weight_VD.shape[0]

    def to(self, device: torch.device) -> Head:
        """The same head on another device, without a gradient."""
        bias_V = None if self.bias_V is None else self.bias_V.detach().to(device)
        return replace(self, weight_VD=self.weight_VD.detach().to(device), bias_V=bias_V)

    @torch.no_grad()
    def logits(self, hidden_ND: Float[Tensor, "N D"]) -> Float[Tensor, "N V"]:
        """The logits themselves, in fp32, without a temperature and without a gradient: for
        samplers, a few rows at a time.
        """
        logits_NV = self.project(hidden_ND)
        self.transform_(logits_NV, temperature=1.0)
        return logits_NV

    def project(
        self, hidden_ND: Float[Tensor, "N D"], out_NV: Float[Tensor, "N V"] | None = None
    ) -> Float[Tensor, "N V"]:
        """h W^T + b in fp32, into the memory of `out_NV` where it is given."""
        weight_VD = self.product_VD
        if hidden_ND.is_cuda and weight_VD.dtype in _TENSOR_CORES:
            raw_NV = torch.mm(
                hidden_ND.to(weight_VD.dtype), weight_VD.t(), out_dtype=torch.float32, out=out_NV
            )
        else:
            dtype = wide(hidden_ND)
            raw_NV = torch.mm(hidden_ND.to(dtype), weight_VD.to(dtype).t(), out=out_NV)
        return raw_NV if self.bias_V is None else raw_NV.add_(self.bias_V.detach())

    def transform_(
        self, raw_NV: Float[Tensor, "N V"], temperature: float
    ) -> Float[Tensor, "N V"] | None:
        """Turn the projection into logits / temperature, in place; returns tanh(x / softcap) where
        there is a softcap.
        """
        if self.softcap is None:
            if self.scale != temperature:
                raw_NV.mul_(self.scale / temperature)
            return None
        tanh_NV = raw_NV.mul_(self.scale / self.softcap).tanh_().clone()
        raw_NV.mul_(self.softcap / temperature)
        return tanh_NV


@dataclass(frozen=True, eq=False)
class Teacher:
    """A frozen model at the student's rows: its hidden states, of its own width, and its head.

    It never receives a gradient.
    """

    hidden_ND: Float[Tensor, "N D"]
    head: Head


class HeadGradient:
    """Sums the gradients of hidden states, weight and bias over chunks of rows; skips what needs
    none.

    Every row comes once, so that the first chunk begins the sums and nothing has to be zeroed.
    """

    def __init__(
        self, hidden_ND: Float[Tensor, "N D"], head: Head, *, hidden: bool, weight: bool, bias: bool
    ) -> None:
        self.weight_VD = head.product_VD
        self.dhidden_ND, self.dweight_VD, self.dbias_V = (
            None
            if tensor is None or not needed
            else torch.empty_like(tensor, dtype=wide(tensor), requires_grad=False)
            for tensor, needed in (
                (hidden_ND, hidden),
                (head.weight_VD, weight),
                (head.bias_V, bias),
            )
        )

    @property
    def needed(self) -> bool:
        """False where nothing asks for a gradient, so that the gradient of the logits need not be
        formed.
        """
        return not (self.dhidden_ND is None and self.dweight_VD is None and self.dbias_V is None)

    @property
    def all(self) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Of hidden states, weight and bias."""
        return self.dhidden_ND, self.dweight_VD, self.dbias_V

    def add(
        self, rows: slice, hidden_CD: Float[Tensor, "C D"], draw_CV: Float[Tensor, "C V"]
    ) -> None:
        """Take in a chunk: `draw_CV` is the gradient with respect to h W^T + b at those rows."""
        shared = takes_product(hidden_CD) and hidden_CD.dtype == self.weight_VD.dtype
        factor_CV = draw_CV.to(hidden_CD.dtype) if shared else draw_CV  # one cast for both products
        if self.dhidden_ND is not None:
            add_product(self.dhidden_ND[rows], factor_CV, self.weight_VD, first=True)
        if self.dweight_VD is not None:
            add_product(self.dweight_VD, factor_CV.t(), hidden_CD, first=not rows.start)
        if self.dbias_V is not None:
            if not rows.start:
                self.dbias_V.zero_()
            self.dbias_V.add_(draw_CV.sum(0))
