"""Scores that combine student entropy and divergence from the teacher."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaxtyping import Float

if TYPE_CHECKING:
    from torch import Tensor


def soft_or(
    entropy_BT: Float[Tensor, "B T"], divergence_BT: Float[Tensor, "B T"]
) -> Float[Tensor, "B T"]:
    """h + d - h d = 1 - (1 - h)(1 - d) for h, d in [0, 1]: high if either is high.

    TIP, arXiv 2604.14084, section 6.
    """
    return entropy_BT + divergence_BT - entropy_BT * divergence_BT


def overconfidence(
    kl_forward_BT: Float[Tensor, "B T"], entropy_BT: Float[Tensor, "B T"]
) -> Float[Tensor, "B T"]:
    """KL(teacher || student) (1 - h), in nats: high if a confident student is wrong.

    h is the entropy normalised to [0, 1] (TIP, section 7.3). The forward KL is used because the
    reverse KL is hardly affected by teacher mass that the student ignores.
    """
    return kl_forward_BT * (1 - entropy_BT)
