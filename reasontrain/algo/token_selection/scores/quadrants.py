"""The four quadrants of student entropy and teacher divergence (TIP, arXiv 2604.14084)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float, Int

from reasontrain.algo.token_selection.scores.normalise import quantile

if TYPE_CHECKING:
    from torch import Tensor


class Quadrant(IntEnum):
    """Quadrant of a token by entropy and divergence; NONE for tokens outside the response."""

    NONE = 0
    Q1 = 1  # high entropy, high divergence
    Q2 = 2  # high entropy, low divergence
    Q3 = 3  # low entropy, high divergence: confident and wrong
    Q4 = 4  # low entropy, low divergence: solved


QUADRANTS = (Quadrant.Q1, Quadrant.Q2, Quadrant.Q3, Quadrant.Q4)


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """Values above which entropy and divergence count as high, in the unit of the evidence.

    The paper states none. Medians determine sums of shares (Q1 + Q2 = Q1 + Q3 = 1/2), so report a
    fixed pair of thresholds beside them.
    """

    entropy: float
    divergence: float


def medians(
    entropy_BT: Float[Tensor, "B T"],
    divergence_BT: Float[Tensor, "B T"],
    among_BT: Bool[Tensor, "B T"],
) -> Thresholds:
    """The medians of entropy and divergence over the step."""
    flat = among_BT.reshape(1, -1)
    middle_entropy, middle_divergence = (
        float(quantile(v.reshape(1, -1), flat, 0.5)) for v in (entropy_BT, divergence_BT)
    )
    return Thresholds(entropy=middle_entropy, divergence=middle_divergence)


def quadrants(
    entropy_BT: Float[Tensor, "B T"],
    divergence_BT: Float[Tensor, "B T"],
    among_BT: Bool[Tensor, "B T"],
    thresholds: Thresholds,
) -> Int[Tensor, "B T"]:
    """The quadrant of each token of the mask, NONE elsewhere; high is strictly above the threshold.

    Args:
        entropy_BT: student entropy, in nats.
        divergence_BT: teacher divergence, in nats.
        among_BT: mask of the tokens to classify.
        thresholds: values above which entropy and divergence count as high.

    Returns:
        A `Quadrant` per token.
    """
    unsure_BT = entropy_BT > thresholds.entropy
    far_BT = divergence_BT > thresholds.divergence
    sure_BT = torch.where(far_BT, Quadrant.Q3, Quadrant.Q4)
    quadrant_BT = torch.where(unsure_BT, torch.where(far_BT, Quadrant.Q1, Quadrant.Q2), sure_BT)
    return torch.where(among_BT, quadrant_BT, Quadrant.NONE)


def shares(quadrant_BT: Int[Tensor, "B T"], among_BT: Bool[Tensor, "B T"]) -> dict[Quadrant, float]:
    """Share of each quadrant among the tokens of the mask; all 0 if there are none."""
    chosen_N = quadrant_BT[among_BT]
    return {q: float((chosen_N == q).sum()) / max(len(chosen_N), 1) for q in QUADRANTS}


def recall(
    quadrant_BT: Int[Tensor, "B T"], kept_BT: Bool[Tensor, "B T"], quadrant: Quadrant = Quadrant.Q3
) -> float | None:
    """Share of a quadrant's tokens that are kept; None if the quadrant is empty."""
    kept_N = kept_BT[quadrant_BT == quadrant]
    return float(kept_N.double().mean()) if len(kept_N) else None
