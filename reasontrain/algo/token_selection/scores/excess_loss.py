"""Excess loss: the change of a token's loss since an earlier model, and scores derived from it.

ssToken, arXiv 2510.18250.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Bool, Float

from reasontrain.algo.token_selection.scores.normalise import span_of

if TYPE_CHECKING:
    from torch import Tensor

Norm = Literal["minmax", "rank", "zscore"]


def retrospective(
    logp_BT: Float[Tensor, "B T"], history_logp_BT: Float[Tensor, "B T"]
) -> Float[Tensor, "B T"]:
    """REL = l_history - l = log p - log p_history, in nats: positive where the model has improved.

    Rho-1 (arXiv 2404.07965) uses the opposite sign, with a better model in place of the earlier
    one.
    """
    return logp_BT - history_logp_BT


def width(value_BT: Float[Tensor, "B T"], among_BT: Bool[Tensor, "B T"]) -> Float[Tensor, "B 1"]:
    """Range (max - min) of each rollout's values inside the mask, in their unit; 0 if empty."""
    span = span_of(value_BT, among_BT, scope="rollout")
    return (span.high_S1 - span.low_S1).expand(len(value_BT), 1)


def normalised(
    value_BT: Float[Tensor, "B T"], among_BT: Bool[Tensor, "B T"], norm: Norm
) -> Float[Tensor, "B T"]:
    """The values normalised over the tokens of the mask in each rollout; undefined elsewhere.

    `minmax` is (v - min) / (max - min), or 0 for a rollout whose values are all equal (the paper
    instead adds 1e-8 to the denominator). `rank` is the share of the other values that are lower.
    `zscore` is (v - mean) / standard deviation, which is not in [0, 1].
    """
    match norm:
        case "minmax":
            return span_of(value_BT, among_BT, scope="rollout").normalise(value_BT)
        case "rank":
            sorted_BT = value_BT.double().masked_fill(~among_BT, torch.inf).sort(1).values
            below_BT = torch.searchsorted(sorted_BT, value_BT.double().contiguous())
            return below_BT / (among_BT.sum(1, keepdim=True) - 1).clamp(min=1).double()
        case "zscore":
            num_B1 = among_BT.sum(1, keepdim=True).clamp(min=1)
            centred_BT = _centred(value_BT.double(), among_BT)
            deviation_B1 = (centred_BT.square().sum(1, keepdim=True) / num_B1).sqrt()
            # Not deviation_B1 > 0: rounding of the mean can make it positive for equal values.
            varies_B1 = width(value_BT, among_BT) > 0
            return torch.where(
                varies_B1, centred_BT / torch.where(varies_B1, deviation_B1, 1.0), 0.0
            )


def detrended(
    value_BT: Float[Tensor, "B T"], among_BT: Bool[Tensor, "B T"]
) -> Float[Tensor, "B T"]:
    """The values inside the mask minus their linear trend over the position; 0 elsewhere.

    The trend is a least-squares fit within each rollout. As a response grows, attention moves from
    the prompt to the response itself, so without this its first tokens would always rank highest.
    """
    place_BT = _centred(among_BT.cumsum(1).double(), among_BT)
    centred_BT = _centred(value_BT.double(), among_BT)
    square_B1 = place_BT.square().sum(1, keepdim=True)
    slope_B1 = (place_BT * centred_BT).sum(1, keepdim=True) / torch.where(
        square_B1 > 0, square_B1, 1.0
    )
    return centred_BT - slope_B1 * place_BT


def combined(
    excess_BT: Float[Tensor, "B T"],
    attention_BT: Float[Tensor, "B T"],
    gamma_B1: Float[Tensor, "B 1"],
) -> Float[Tensor, "B T"]:
    """gamma * REL + (1 - gamma) * attention, with REL already normalised (ssToken, section 2.3)."""
    return gamma_B1 * excess_BT + (1 - gamma_B1) * attention_BT


def _centred(value_BT: Float[Tensor, "B T"], among_BT: Bool[Tensor, "B T"]) -> Float[Tensor, "B T"]:
    """The values inside the mask minus their rollout's mean; 0 elsewhere."""
    num_B1 = among_BT.sum(1, keepdim=True).clamp(min=1)
    mean_B1 = torch.where(among_BT, value_BT, 0.0).sum(1, keepdim=True) / num_B1
    return torch.where(among_BT, value_BT - mean_B1, 0.0)
