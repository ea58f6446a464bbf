"""Choice of a token from logits and a uniform number: temperature, truncation, draw."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from reasontrain.data.sampling import Sampling

UNIT = 2.0**53
"""Probabilities are drawn as whole multiples of 1 / UNIT, the spacing of the uniform numbers."""


def choose(
    logits_NV: Float[Tensor, "N V"], uniform_N: Float[Tensor, " N"], sampling: Sampling
) -> tuple[Int[Tensor, " N"], Float[Tensor, " N"]]:
    """Choose one token per sequence; return ids and log-probs.

    Log-probs are at the sampling temperature (1 if greedy), before truncation.
    """
    temperature = sampling.temperature or 1.0
    logp_NV = (logits_NV if temperature == 1 else logits_NV / temperature).log_softmax(-1)
    greedy = sampling.temperature == 0
    ids_N = logp_NV.argmax(-1) if greedy else draw(truncate(logp_NV.exp(), sampling), uniform_N)
    return ids_N, logp_NV.gather(1, ids_N[:, None])[:, 0]


def to_host(
    ids_NS: Int[Tensor, "N S"], logp_NS: Float[Tensor, "N S"]
) -> tuple[list[list[int]], list[list[float]]]:
    """Chosen ids and their log-probs as Python numbers, for which the host waits only once."""
    # float64 holds every id and every float32 exactly, so that both travel in one tensor.
    ids, logp = torch.stack([ids_NS.double(), logp_NS.double()]).tolist()
    return [[int(token) for token in row] for row in ids], logp


def truncate(probability_NV: Float[Tensor, "N V"], sampling: Sampling) -> Float[Tensor, "N V"]:
    """Zero the probabilities cut off by top-k, then top-p, then min-p, without renormalising.

    Equal probabilities rank by token id.
    """
    if sampling.top_k > 0 or sampling.top_p < 1:
        ranked_NV, order_NV = probability_NV.sort(dim=-1, descending=True, stable=True)
        if sampling.top_k > 0:
            ranked_NV[:, sampling.top_k :] = 0
        if sampling.top_p < 1:
            mass_NV = ranked_NV.double().cumsum(-1)
            before_NV = mass_NV - ranked_NV
            ranked_NV = ranked_NV.masked_fill(before_NV >= sampling.top_p * mass_NV[:, -1:], 0)
        probability_NV = torch.zeros_like(probability_NV).scatter(1, order_NV, ranked_NV)
    if sampling.min_p > 0:
        floor_N1 = sampling.min_p * probability_NV.amax(-1, keepdim=True)
        probability_NV = probability_NV.masked_fill(probability_NV < floor_N1, 0)
    return probability_NV


def draw(probability_NV: Float[Tensor, "N V"], uniform_N: Float[Tensor, " N"]) -> Int[Tensor, " N"]:
    """The id at which the cumulative sum, in the order of ids, passes `uniform` times the total.

    The draw is the same on every device, and never returns an id of probability 0.
    """
    # Integer sums are exact in any order, unlike a floating-point cumsum, whose order depends on
    # the device. The product with a power of two is exact in single and double precision.
    cumulative_NV = (probability_NV * UNIT).long().cumsum_(-1)
    target_N = (uniform_N * cumulative_NV[:, -1]).long()  # below the total, because uniform < 1
    return torch.searchsorted(cumulative_NV, target_N[:, None], right=True)[:, 0].clamp(
        max=probability_NV.shape[1] - 1
    )
