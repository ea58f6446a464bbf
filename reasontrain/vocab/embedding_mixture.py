"""Mixtures of input embeddings, which a soft chain of thought feeds instead of tokens."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from reasontrain.vocab.head import add_matmul, matmul, matmul_transposed


@dataclass(frozen=True, eq=False)
class EmbeddingBasis:
    """The embeddings that are mixed: h0 = scale * p E, in the space of a model's `inputs_embeds`.

    Attributes:
        weight_VD: the embedding matrix E; a tied model passes the matrix of its head.
        num_tokens: only the first `num_tokens` rows are tokens; padding rows beyond the tokenizer
            are never mixed in.
        scale: factor that the model multiplies its embeddings by (Gemma).
        matmul_dtype: dtype of matrix products, as in `Head`.
    """

    weight_VD: Float[Tensor, "V D"]
    num_tokens: int
    scale: float = 1.0
    matmul_dtype: torch.dtype | None = None

    @cached_property
    def matmul_weight_VD(self) -> Float[Tensor, "V D"]:
        """The embeddings in the dtype of matrix products, cast once and without a gradient."""
        return self.weight_VD.detach().to(self.matmul_dtype or self.weight_VD.dtype)

    def mask_non_tokens_(self, logits_NV: Float[Tensor, "N V"]) -> Float[Tensor, "N V"]:
        """Set the logits of padding rows to -inf, in place."""
        logits_NV[:, self.num_tokens :] = -torch.inf
        return logits_NV

    def mix(self, p_NV: Float[Tensor, "N V"]) -> Float[Tensor, "N D"]:
        """scale * p E, in fp32."""
        return matmul(p_NV, self.matmul_weight_VD).mul_(self.scale)

    def probability_gradient(self, dmixture_ND: Float[Tensor, "N D"]) -> Float[Tensor, "N V"]:
        """The gradient of `mix` with respect to p: scale * d E^T."""
        return matmul_transposed(dmixture_ND, self.matmul_weight_VD).mul_(self.scale)

    def add_weight_gradient(
        self,
        total_VD: Float[Tensor, "V D"],
        p_NV: Float[Tensor, "N V"],
        dmixture_ND: Float[Tensor, "N D"],
    ) -> None:
        """Add the gradient of `mix` with respect to E, scale * p^T d, to `total_VD`."""
        add_matmul(total_VD, p_NV.t(), dmixture_ND * self.scale)


def softmax_(logits_NV: Float[Tensor, "N V"], tau: float) -> Float[Tensor, "N V"]:
    """softmax(z / tau), in the memory of z."""
    # The maximum is subtracted before the division: at tau = 1e-4 nothing overflows.
    logits_NV.sub_(logits_NV.amax(-1, keepdim=True)).div_(tau).exp_()
    return logits_NV.div_(logits_NV.sum(-1, keepdim=True))
