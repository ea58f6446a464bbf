"""Contrastive estimation: how likely a token is to one model with another's likings divided out."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from reasontrain.vocab.chunks import Scan
from reasontrain.vocab.head import Head, Teacher

LEAST = -1e30
"""What stands for the logarithm of nothing: finite, and exp gives 0."""


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
    """log s = (1 + beta) log P(id) - beta log P_negative(id) - log Z, with Z the sum of the same
    over the vocabulary.

    cDPO, arXiv 2411.19943. Both heads run and are combined in fp32, chunk by chunk, whatever
    `head.vocabulary` says: there is no gradient to take another way, and no kernel. With
    `plausible` above 0 only ids take part whose P is at least that share of the likeliest one's
    (contrastive decoding, arXiv 2210.15097; not in cDPO).
    """
    found = []
    with torch.autocast(hidden_ND.device.type, enabled=False):
        for part in Scan(hidden_ND, head, ids_N, 1.0, negative, chunk).chunks():
            for block in part.blocks():
                p = block.closed_form
                logp_NS = p.shared_logp_NS
                combined_NS = logp_NS.mul(1 + beta).sub_(p.logq_NS, alpha=beta)
                if plausible > 0:
                    floor_N1 = logp_NS.amax(1, keepdim=True) + math.log(plausible)
                    combined_NS.masked_fill_(logp_NS < floor_N1, LEAST)
                logscore_NS = torch.log_softmax(combined_NS, -1, out=combined_NS)
                found.append(logscore_NS.gather(1, p.ids_N[:, None]).squeeze(1).clamp(min=LEAST))
    return torch.cat(found)
