"""The log-density of soft tokens and its gradient in one pass, as `fused` does it for tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from reasontrain.types import SoftScoring, TokenFields, TokenStats
from reasontrain.vocab import full_logits
from reasontrain.vocab.chunks import CHUNK_FLOATS_CPU, CHUNK_FLOATS_GPU, Projection, spans
from reasontrain.vocab.embedding_mixture import EmbeddingBasis, softmax_
from reasontrain.vocab.fused import Fused, KnownGradient, TokenObjective
from reasontrain.vocab.head import Head, HeadGradient, wide

HEALTH, SCORED = "soft_health", "soft_scored"
SOFT_STATISTICS = (HEALTH, SCORED)
MOST_ROWS = 256
"""Of a chunk: six products of this height keep a processor busy, and two [C, V] are alive."""


@dataclass(frozen=True, eq=False)
class FedEmbeddings:
    """Soft tokens at N rows: the embeddings that were fed, and the tau and sigma of the law that
    they were drawn from.
    """

    value_ND: Float[Tensor, "N D"]
    tau: float
    sigma: float


def soft(
    hidden_ND: Float[Tensor, "N D"],
    head: Head,
    basis: EmbeddingBasis,
    fed: FedEmbeddings,
    columns: TokenFields,
    coefficient_N: Float[Tensor, " N"],
    objective: TokenObjective,
    scoring: SoftScoring,
    *,
    chunk: int | None = None,
) -> Fused:
    """An objective of log pi(h) = (D - |h - h0|^2 / sigma^2) / 2 with h0 = scale * softmax(z / tau)
    E, and its gradient.

    Soft Tokens, arXiv 2509.19170, eq. 10; the constant D / 2 makes the expectation 0. h, the
    embedding fed, is a fixed action; with w = d loss / d log pi: r = w (h - h0) / sigma^2, dE +=
    p^T r, dp = r E^T, dz = p (dp - <p, dp>) / tau. Nothing of size N x V is made. `soft_health`
    sums |h - h0|^2 / (D sigma^2), which is 1 in the mean where nothing has changed, and
    `soft_scored` the rows with a score: a mixture that is one token, in float32, has none. No
    kernel is of densities: `whole` apart, torch computes whatever the head says.
    """
    if head.vocabulary == "full_logits":
        return _whole(hidden_ND, head, basis, fed, columns, coefficient_N, objective, scoring)
    tracking = torch.is_grad_enabled()
    weights = (hidden_ND, head.weight_VD, head.bias_V)
    hidden, weight, bias = (
        tracking and tensor is not None and tensor.requires_grad for tensor in weights
    )
    known = HeadGradient(hidden_ND, head, hidden=hidden, weight=weight, bias=bias)
    embedded = tracking and basis.weight_VD.requires_grad and not scoring.detach_mixture_embedding
    dbasis_VD = (
        torch.zeros_like(basis.weight_VD, dtype=wide(basis.weight_VD), requires_grad=False)
        if embedded
        else None
    )
    floats = CHUNK_FLOATS_CPU if hidden_ND.device.type == "cpu" else CHUNK_FLOATS_GPU
    size = chunk if chunk is not None else max(1, min(MOST_ROWS, floats // head.width))
    project = Projection(head)
    loss = torch.zeros((), dtype=wide(hidden_ND), device=hidden_ND.device)
    sums = dict.fromkeys(SOFT_STATISTICS, torch.zeros_like(loss))
    with torch.no_grad(), torch.autocast(hidden_ND.device.type, enabled=False):
        for rows in spans(len(hidden_ND), size):
            keep_C = coefficient_N[rows] != 0
            hidden_CD, fed_CD = (
                given.detach()[rows].masked_fill(~keep_C[:, None], 0)
                for given in (hidden_ND, fed.value_ND)
            )
            part = _Chunk(
                project(hidden_CD), head, basis, FedEmbeddings(fed_CD, fed.tau, fed.sigma), scoring
            )
            some, slope_C = _slopes(part.logp_C, columns[rows], coefficient_N[rows], objective)
            loss += some
            for name, value_C in ((HEALTH, part.health_C), (SCORED, part.scored_C)):
                sums[name] = sums[name] + torch.where(keep_C, value_C, 0).sum()
            if known.needed or dbasis_VD is not None:
                known.add(rows, hidden_CD, part.gradient(slope_C, dbasis_VD))
    if known.needed or dbasis_VD is not None:
        loss = KnownGradient.apply(loss, (*known.all, dbasis_VD), *weights, basis.weight_VD)
    return Fused(loss=loss, stats=sums)


def _whole(
    hidden_ND: Float[Tensor, "N D"],
    head: Head,
    basis: EmbeddingBasis,
    fed: FedEmbeddings,
    columns: TokenFields,
    coefficient_N: Float[Tensor, " N"],
    objective: TokenObjective,
    scoring: SoftScoring,
) -> Fused:
    """The same by autograd, of the rows with a coefficient and with logits whole."""
    keep_N = coefficient_N != 0
    with torch.autocast(hidden_ND.device.type, enabled=False):
        logits_KV = full_logits.logits(hidden_ND[keep_N], head)[:, : basis.num_tokens]
        p_KV = torch.softmax(logits_KV / fed.tau, -1)
        mixed_KV = p_KV
        if scoring.tau_grad is not None:
            again_KV = torch.softmax(logits_KV / scoring.tau_grad, -1)
            mixed_KV = p_KV.detach() + (again_KV - again_KV.detach())
        table_VD = (
            basis.weight_VD[: basis.num_tokens]
            .to(basis.product_dtype or basis.weight_VD.dtype)
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
            coefficient_N[keep_N] * objective(TokenStats(lambda name: logp_K), columns[keep_N]).loss
        ).sum()
    scored_K = (p_KV.detach().amax(1) < 1).to(p_KV.dtype)
    return Fused(loss=loss, stats={HEALTH: health_K.detach().sum(), SCORED: scored_K.sum()})


class _Chunk:
    """Some rows while their logits are alive."""

    def __init__(
        self,
        raw_CV: Float[Tensor, "C V"],
        head: Head,
        basis: EmbeddingBasis,
        fed: FedEmbeddings,
        scoring: SoftScoring,
    ) -> None:
        """Takes over the memory of the projection."""
        self.head, self.basis, self.fed, self.scoring = head, basis, fed, scoring
        self._tanh_CV = head.transform_(raw_CV, temperature=1.0)
        basis.hide_(raw_CV)
        self._again_CV = (
            None if scoring.tau_grad is None else softmax_(raw_CV.clone(), scoring.tau_grad)
        )
        self.p_CV = softmax_(raw_CV, fed.tau)
        self.residual_CD = fed.value_ND.to(raw_CV.dtype) - basis.mix(self.p_CV)
        self.health_C = self.residual_CD.square().mean(-1) / fed.sigma**2
        self.scored_C = (self.p_CV.amax(-1) < 1).to(raw_CV.dtype)

    @property
    def logp_C(self) -> Float[Tensor, " C"]:
        """The log-density, up to a constant."""
        return (1 - self.health_C) * (0.5 * self._dimensions)

    @property
    def _dimensions(self) -> int:
        """How many coordinates the density is summed over; the mean counts as one."""
        return self.residual_CD.shape[1] if self.scoring.reduction == "sum" else 1

    def gradient(
        self, slope_C: Float[Tensor, " C"], dbasis_VD: Float[Tensor, "V D"] | None
    ) -> Float[Tensor, "C V"]:
        """The projection's gradient, in the memory of p; that of the basis is added to `dbasis_VD`."""
        share = self._dimensions / self.residual_CD.shape[1]
        dmixture_CD = self.residual_CD * (slope_C * share / self.fed.sigma**2)[:, None]
        if dbasis_VD is not None:
            self.basis.add_gradient(dbasis_VD, self.p_CV, dmixture_CD)
        p_CV = self.p_CV if self._again_CV is None else self._again_CV
        dp_CV = self.basis.pull(dmixture_CD)
        dp_CV.sub_(torch.linalg.vecdot(p_CV, dp_CV)[:, None])
        draw_CV = p_CV.mul_(dp_CV).mul_(self.head.scale / (self.scoring.tau_grad or self.fed.tau))
        if self._tanh_CV is not None:
            draw_CV.mul_(self._tanh_CV.square_().neg_().add_(1))
        return draw_CV


def _slopes(
    logp_C: Float[Tensor, " C"],
    columns: TokenFields,
    coefficient_C: Float[Tensor, " C"],
    objective: TokenObjective,
) -> tuple[Float[Tensor, ""], Float[Tensor, " C"]]:
    """The weighted loss of some rows, and its slope along each of their log-densities."""

    def statistic(name: str) -> Tensor:
        assert name == "logp", f"a soft token has a density and no {name}"
        return leaf_C

    with torch.enable_grad():
        leaf_C = logp_C.requires_grad_()
        total = torch.where(
            coefficient_C != 0, coefficient_C * objective(TokenStats(statistic), columns).loss, 0
        ).sum()
        (slope_C,) = torch.autograd.grad(total, leaf_C)
    return total.detach(), slope_C.masked_fill(coefficient_C == 0, 0)
