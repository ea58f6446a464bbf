"""Contrastive estimation: a token's likelihood under one model, divided by that under another."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from reasontrain.vocab.analytic import LOGP_FLOOR
from reasontrain.vocab.chunks import ChunkedLogits
from reasontrain.vocab.head import Head, Teacher


@torch.no_grad()
def contrast(
    hidden_ND: Float[Tensor, "N D"],
    head: Head,
    ids_N: Int[Tensor, " N"],
    negative: Teacher,
    *,
    beta: float = 1.0,
    plausible: float = 0.0,
    chunk: int | None = None,
) -> Float[Tensor, " N"]:
    """Contrastive log-scores log s = (1 + beta) log P(id) - beta log P_negative(id) - log Z.

    cDPO, arXiv 2411.19943; Z normalises s over the vocabulary. Both heads run and are combined in
    fp32, chunk by chunk. Always uses the analytic backend: there is no gradient, and no kernel for
    this score.

    Args:
        hidden_ND: the positive model's hidden states that predict `ids_N`.
        head: the positive model's head.
        ids_N: the token at each position.
        negative: the negative model's hidden states at the same positions, and its head.
        beta: strength of the contrast.
        plausible: above 0, only ids take part whose P is at least this share of the likeliest id's
            (contrastive decoding, arXiv 2210.15097; not in cDPO).
        chunk: positions per matrix product; None chooses by memory.

    Returns:
        log s at each position, in nats; -1e30 stands for log 0.
    """
    logscores: list[Tensor] = []
    with torch.autocast(hidden_ND.device.type, enabled=False):
        for part in ChunkedLogits(hidden_ND, head, ids_N, 1.0, negative, chunk).chunks():
            for block in part.blocks():
                p = block.analytic
                logp_NS = p.shared_logp_NS
                combined_NS = logp_NS.mul(1 + beta).sub_(p.logq_NS, alpha=beta)
                if plausible > 0:
                    floor_N1 = logp_NS.amax(1, keepdim=True) + math.log(plausible)
                    combined_NS.masked_fill_(logp_NS < floor_N1, LOGP_FLOOR)
                logscore_NS = torch.log_softmax(combined_NS, -1, out=combined_NS)
                logscores.append(
                    logscore_NS.gather(1, p.ids_N[:, None]).squeeze(1).clamp(min=LOGP_FLOOR)
                )
    return torch.cat(logscores)
