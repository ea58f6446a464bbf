"""The log-density of soft tokens and its gradient in one pass, as `fused` does for tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from reasontrain.types import SoftScoring, TokenFields, TokenStats
from reasontrain.vocab import full_logits
from reasontrain.vocab.chunks import Projection, chunk_size, spans
from reasontrain.vocab.embedding_mixture import EmbeddingBasis, softmax_
from reasontrain.vocab.fused import Fused, PrecomputedGradient, TokenObjective
from reasontrain.vocab.head import Head, HeadGradient, accumulation_dtype

HEALTH = "soft_health"
SCORED = "soft_scored"
SOFT_STATISTICS = (HEALTH, SCORED)
MAX_CHUNK = 256
"""Largest number of positions C in a chunk.

The six matrix products are efficient at this height, and two tensors [C, V] are alive at once.
"""


@dataclass(frozen=True, eq=False)
class FedEmbeddings:
    """Soft tokens at N positions: the embeddings that were fed, drawn from N(h0, sigma^2).

    h0 is the mixture of embeddings at temperature `tau`.
    """

    value_ND: Float[Tensor, "N D"]
    tau: float
    sigma: float


def soft(
    hidden_ND: Float[Tensor, "N D"],
    head: Head,
    basis: EmbeddingBasis,
    fed: FedEmbeddings,
    fields: TokenFields,
    loss_weight_N: Float[Tensor, " N"],
    objective: TokenObjective,
    scoring: SoftScoring,
    *,
    chunk: int | None = None,
) -> Fused:
    """An objective of log pi(h) = (D - |h - h0|^2 / sigma^2) / 2 and its gradients.

    h0 = scale * softmax(z / tau) E (Soft Tokens, arXiv 2509.19170, eq. 10); the constant D / 2
    makes the expectation 0. h, the embedding that was fed, is a fixed action. With w = d loss / d
    log pi:

        r = w (h - h0) / sigma^2,  dE += p^T r,  dp = r E^T,  dz = p (dp - <p, dp>) / tau

    Nothing of size N x V exists, unless the head's backend is `full_logits`. There is no Triton
    kernel for densities: "triton" uses torch too.

    Args:
        hidden_ND: hidden states that predict the soft tokens.
        head: the head, with logits z; gradients go to its weight and bias.
        basis: the embeddings E; its weight gets a gradient.
        fed: the embeddings h at the same positions, with tau and sigma.
        fields: ids, advantages and evidence at the N positions.
        loss_weight_N: factor of each loss; zero gives a gradient of exactly zero.
        objective: maps the statistic "logp" (nats, up to a constant) and fields to losses.
        scoring: choices that the paper leaves open.
        chunk: positions per matrix product; None chooses by memory, at most `MAX_CHUNK`.

    Returns:
        The weighted sum of losses, with its gradient, and two sums over the positions with a loss
        weight. `soft_health` sums |h - h0|^2 / (D sigma^2), 1 in the mean for an unchanged policy.
        `soft_scored` counts positions that have a gradient: none flows through a mixture that is
        one token in float32.
    """
    if head.vocabulary == "full_logits":
        return _full_logits_loss(
            hidden_ND, head, basis, fed, fields, loss_weight_N, objective, scoring
        )
    tracking = torch.is_grad_enabled()
    weights = (hidden_ND, head.weight_VD, head.bias_V)
    hidden, weight, bias = (
        tracking and tensor is not None and tensor.requires_grad for tensor in weights
    )
    gradient = HeadGradient(hidden_ND, head, hidden=hidden, weight=weight, bias=bias)
    trains_basis = (
        tracking and basis.weight_VD.requires_grad and not scoring.detach_mixture_embedding
    )
    dbasis_VD = (
        torch.zeros_like(
            basis.weight_VD, dtype=accumulation_dtype(basis.weight_VD), requires_grad=False
        )
        if trains_basis
        else None
    )
    most = min(MAX_CHUNK, chunk_size(head.width, gpu=hidden_ND.device.type != "cpu"))
    size = chunk if chunk is not None else most
    project = Projection(head)
    loss = torch.zeros((), dtype=accumulation_dtype(hidden_ND), device=hidden_ND.device)
    sums = dict.fromkeys(SOFT_STATISTICS, torch.zeros_like(loss))
    with torch.no_grad(), torch.autocast(hidden_ND.device.type, enabled=False):
        for rows in spans(len(hidden_ND), size):
            keep_C = loss_weight_N[rows] != 0
            hidden_CD, fed_CD = (
                tensor_ND.detach()[rows].masked_fill(~keep_C[:, None], 0)
                for tensor_ND in (hidden_ND, fed.value_ND)
            )
            part = _SoftChunk(
                project(hidden_CD), head, basis, FedEmbeddings(fed_CD, fed.tau, fed.sigma), scoring
            )
            chunk_loss, grad_C = _loss_and_gradient(
                part.logp_C, fields[rows], loss_weight_N[rows], objective
            )
            loss += chunk_loss
            for name, value_C in ((HEALTH, part.health_C), (SCORED, part.scored_C)):
                sums[name] = sums[name] + torch.where(keep_C, value_C, 0).sum()
            if gradient.needed or dbasis_VD is not None:
                gradient.add(rows, hidden_CD, part.gradient(grad_C, dbasis_VD))
    if gradient.needed or dbasis_VD is not None:
        loss = PrecomputedGradient.apply(
            loss, (*gradient.gradients, dbasis_VD), *weights, basis.weight_VD
        )
    return Fused(loss=loss, stats=sums)


def _full_logits_loss(
    hidden_ND: Float[Tensor, "N D"],
    head: Head,
    basis: EmbeddingBasis,
    fed: FedEmbeddings,
    fields: TokenFields,
    loss_weight_N: Float[Tensor, " N"],
    objective: TokenObjective,
    scoring: SoftScoring,
) -> Fused:
    """The same loss by autograd, at the K positions with a loss weight."""
    keep_N = loss_weight_N != 0
    with torch.autocast(hidden_ND.device.type, enabled=False):
        logits_KV = full_logits.logits(hidden_ND[keep_N], head)[:, : basis.num_tokens]
        p_KV = torch.softmax(logits_KV / fed.tau, -1)
        mixed_KV = p_KV
        if scoring.tau_grad is not None:
            # The value of the mixture at tau with the gradient of the one at tau_grad.
            grad_p_KV = torch.softmax(logits_KV / scoring.tau_grad, -1)
            mixed_KV = p_KV.detach() + (grad_p_KV - grad_p_KV.detach())
        table_VD = (
            basis.weight_VD[: basis.num_tokens]
            .to(basis.matmul_dtype or basis.weight_VD.dtype)
            .to(p_KV.dtype)
        )
        mixture_KD = (
            basis.scale
            * mixed_KV
            @ (table_VD.detach() if scoring.detach_mixture_embedding else table_VD)
        )
        residual_KD = fed.value_ND.detach()[keep_N].to(p_KV.dtype) - mixture_KD
        health_K = residual_KD.square().mean(1) / fed.sigma**2
        logp_K = (1 - health_K) * (
            0.5 * (residual_KD.shape[1] if scoring.reduction == "sum" else 1)
        )
        loss = (
            loss_weight_N[keep_N] * objective(TokenStats(lambda name: logp_K), fields[keep_N]).loss
        ).sum()
    scored_K = (p_KV.detach().amax(1) < 1).to(p_KV.dtype)
    return Fused(loss=loss, stats={HEALTH: health_K.detach().sum(), SCORED: scored_K.sum()})


class _SoftChunk:
    """The density at C positions and its gradient, while their logits are alive."""

    def __init__(
        self,
        raw_CV: Float[Tensor, "C V"],
        head: Head,
        basis: EmbeddingBasis,
        fed: FedEmbeddings,
        scoring: SoftScoring,
    ) -> None:
        """Take over the memory of the projection `raw_CV`: `p_CV` is written over it."""
        self.head = head
        self.basis = basis
        self.fed = fed
        self.scoring = scoring
        self._tanh_CV = head.transform_(raw_CV, temperature=1.0)
        basis.mask_non_tokens_(raw_CV)
        # The mixture at tau_grad needs memory of its own: the next line overwrites the logits.
        self._grad_p_CV = (
            None if scoring.tau_grad is None else softmax_(raw_CV.clone(), scoring.tau_grad)
        )
        self.p_CV = softmax_(raw_CV, fed.tau)
        self.residual_CD = fed.value_ND.to(raw_CV.dtype) - basis.mix(self.p_CV)
        self.health_C = self.residual_CD.square().mean(-1) / fed.sigma**2
        self.scored_C = (self.p_CV.amax(-1) < 1).to(raw_CV.dtype)

    @property
    def logp_C(self) -> Float[Tensor, " C"]:
        """The log-density in nats, up to a constant."""
        return (1 - self.health_C) * (0.5 * self._dimensions)

    @property
    def _dimensions(self) -> int:
        """Number of coordinates that the density is summed over; the mean counts as one."""
        return self.residual_CD.shape[1] if self.scoring.reduction == "sum" else 1

    def gradient(
        self, grad_C: Float[Tensor, " C"], dbasis_VD: Float[Tensor, "V D"] | None
    ) -> Float[Tensor, "C V"]:
        """d loss / d raw in the memory of p; adds the gradient of the embeddings to `dbasis_VD`.

        `grad_C` is d loss / d log-density.
        """
        share = self._dimensions / self.residual_CD.shape[1]
        dmixture_CD = self.residual_CD * (grad_C * share / self.fed.sigma**2)[:, None]
        if dbasis_VD is not None:
            self.basis.add_weight_gradient(dbasis_VD, self.p_CV, dmixture_CD)
        p_CV = self.p_CV if self._grad_p_CV is None else self._grad_p_CV
        dp_CV = self.basis.probability_gradient(dmixture_CD)
        dp_CV.sub_(torch.linalg.vecdot(p_CV, dp_CV)[:, None])
        draw_CV = p_CV.mul_(dp_CV).mul_(self.head.scale / (self.scoring.tau_grad or self.fed.tau))
        if self._tanh_CV is not None:
            # d (softcap * tanh(x / softcap)) / dx = 1 - tanh^2
            draw_CV.mul_(self._tanh_CV.square_().neg_().add_(1))
        return draw_CV


def _loss_and_gradient(
    logp_C: Float[Tensor, " C"],
    fields: TokenFields,
    loss_weight_C: Float[Tensor, " C"],
    objective: TokenObjective,
) -> tuple[Float[Tensor, ""], Float[Tensor, " C"]]:
    """The weighted loss of C positions and d loss / d log-density at each."""

    def statistic(name: str) -> Tensor:
        assert name == "logp", f"a soft token has a density and no {name}"
        return leaf_C

    with torch.enable_grad():
        leaf_C = logp_C.requires_grad_()
        total = torch.where(
            loss_weight_C != 0, loss_weight_C * objective(TokenStats(statistic), fields).loss, 0
        ).sum()
        (grad_C,) = torch.autograd.grad(total, leaf_C)
    return total.detach(), grad_C.masked_fill(loss_weight_C == 0, 0)
