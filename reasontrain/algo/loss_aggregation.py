"""Weights become coefficients: the only place where a loss is ever divided by anything.

A step's loss is sum(coefficient * loss). Coefficients are fixed for the whole step before its first backward, from counts of the
whole step over all ranks, so that cutting the step into micro-batches or ranks cannot change a gradient. A fractional weight
never enters a count, and an empty count divides by one: nothing selected is a zero.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, get_args

from jaxtyping import Float
from torch import Tensor

from reasontrain.types import Counts

Reduction = Callable[[Float[Tensor, "B T"], Counts], Float[Tensor, "B T"]]
Average = Literal["per_rollout", "per_kept_row", "per_target_row", "per_sampled_row", "sum_per_rollout", "per_pair"]


def per_rollout(weight_BT: Float[Tensor, "B T"], counts: Counts) -> Float[Tensor, "B T"]:
    """The mean over a rollout's kept rows, then over the rollouts that keep any (TIP, arXiv 2604.14084, eq. 9)."""
    kept_B1 = (weight_BT != 0).sum(1, keepdim=True).clamp(min=1)
    return weight_BT / kept_B1 / max(counts.kept_rollouts, 1)


def per_kept_row(weight_BT: Float[Tensor, "B T"], counts: Counts) -> Float[Tensor, "B T"]:
    """Every kept row counts the same, whichever rollout it sits in (D3S, ssToken)."""
    return weight_BT / max(counts.kept_rows, 1)


def per_target_row(weight_BT: Float[Tensor, "B T"], counts: Counts) -> Float[Tensor, "B T"]:
    """Divided by all response rows, kept or not: keeping fewer makes a smaller step (PRIOR)."""
    return weight_BT / max(counts.response_rows, 1)


def per_sampled_row(weight_BT: Float[Tensor, "B T"], counts: Counts) -> Float[Tensor, "B T"]:
    """Divided by all rows that were sampled, dropped or not: a smaller budget makes a smaller step (D3S's option)."""
    return weight_BT / max(counts.sampled_rows, 1)


def sum_per_rollout(weight_BT: Float[Tensor, "B T"], counts: Counts) -> Float[Tensor, "B T"]:
    """The sum over a rollout's rows, then the mean over rollouts: the plain policy gradient (Soft Tokens)."""
    return weight_BT / max(counts.rollouts, 1)


def per_pair(weight_BT: Float[Tensor, "B T"], counts: Counts) -> Float[Tensor, "B T"]:
    """The mean over pairs (cDPO)."""
    return weight_BT / max(counts.pairs, 1)


AVERAGES: Mapping[Average, Reduction] = {
    "per_rollout": per_rollout,
    "per_kept_row": per_kept_row,
    "per_target_row": per_target_row,
    "per_sampled_row": per_sampled_row,
    "sum_per_rollout": sum_per_rollout,
    "per_pair": per_pair,
}
"""Every average by the name that recipes use."""

assert set(AVERAGES) == set(get_args(Average)), "every average has a function, and the other way round"
