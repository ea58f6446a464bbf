"""Mixtures of input embeddings: what a soft chain of thought feeds instead of a token."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from reasontrain.vocab.head import add_product, takes_product, wide


@dataclass(frozen=True, eq=False)
class EmbeddingBasis:
    """The embeddings that are mixed: h0 = scale * p E, in the space that a model's `inputs_embeds`
    are in.

    `scale` is what the model multiplies its embeddings by (Gemma). Only the first `num_tokens` rows
    are tokens: what a model has beyond its tokenizer is never mixed in. `product_dtype` is as in
    `Head`. A tied model passes one matrix as both.
    """

    weight_VD: Float[Tensor, "V D"]
    num_tokens: int
    scale: float = 1.0
    product_dtype: torch.dtype | None = None

    @cached_property
    def product_VD(self) -> Float[Tensor, "V D"]:
        """The embeddings as matrix products take them, cast once."""
        return self.weight_VD.detach().to(self.product_dtype or self.weight_VD.dtype)

    def hide_(self, logits_NV: Float[Tensor, "N V"]) -> Float[Tensor, "N V"]:
        """Give what is no token no probability, in place."""
        logits_NV[:, self.num_tokens :] = -torch.inf
        return logits_NV

    def mix(self, p_NV: Float[Tensor, "N V"]) -> Float[Tensor, "N D"]:
        """scale * p E, in fp32."""
        return _product(p_NV, self.product_VD).mul_(self.scale)

    def pull(self, dmixture_ND: Float[Tensor, "N D"]) -> Float[Tensor, "N V"]:
        """The gradient of `mix` with respect to p: scale * d E^T."""
        return _product(dmixture_ND, self.product_VD.t()).mul_(self.scale)

    def add_gradient(
        self,
        total_VD: Float[Tensor, "V D"],
        p_NV: Float[Tensor, "N V"],
        dmixture_ND: Float[Tensor, "N D"],
    ) -> None:
        """The gradient of `mix` with respect to E, added: scale * p^T d."""
        add_product(total_VD, p_NV.t(), dmixture_ND * self.scale)


def softmax_(logits_NV: Float[Tensor, "N V"], tau: float) -> Float[Tensor, "N V"]:
    """softmax(z / tau) in the memory of z.

    The largest is taken off before the division: at tau = 1e-4 nothing overflows.
    """
    logits_NV.sub_(logits_NV.amax(-1, keepdim=True)).div_(tau).exp_()
    return logits_NV.div_(logits_NV.sum(-1, keepdim=True))


def _product(left: Float[Tensor, "I J"], right: Float[Tensor, "J K"]) -> Float[Tensor, "I K"]:
    """left @ right, summed in fp32."""
    if takes_product(right):
        return torch.mm(left.to(right.dtype), right, out_dtype=torch.float32)
    return left @ right.to(wide(left))
