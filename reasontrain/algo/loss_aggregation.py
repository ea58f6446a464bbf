"""Weights become coefficients: the only place where a loss is ever divided by anything.

A step's loss is sum(coefficient * loss). Coefficients are fixed for the whole step before its first
backward, from counts of the whole step over all ranks, so that cutting the step into micro-batches
or ranks cannot change a gradient. A fractional weight never enters a count, and an empty count
divides by one: nothing selected is a zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, Protocol, get_args, runtime_checkable

from jaxtyping import Float

from reasontrain.types import BatchTotals

if TYPE_CHECKING:
    from torch import Tensor

LossAggregation = Literal[
    "seq_mean_token_mean",
    "token_mean",
    "response_token_mean",
    "sampled_token_mean",
    "seq_mean_token_sum",
    "pair_mean",
]


@runtime_checkable
class LossAggregationFn(Protocol):
    """A function of this module: the selection's weights -> the factor of each loss."""

    def __call__(
        self, weight_BT: Float[Tensor, "B T"], totals: BatchTotals, /
    ) -> Float[Tensor, "B T"]:
        """Divide the weights by a total of the optimiser step."""
        ...


def seq_mean_token_mean(
    weight_BT: Float[Tensor, "B T"], totals: BatchTotals
) -> Float[Tensor, "B T"]:
    """The mean over a rollout's kept rows, then over the rollouts that keep any (TIP, arXiv
    2604.14084, eq. 9).
    """
    kept_B1 = (weight_BT != 0).sum(1, keepdim=True).clamp(min=1)
    return weight_BT / kept_B1 / max(totals.kept_rollouts, 1)


def token_mean(weight_BT: Float[Tensor, "B T"], totals: BatchTotals) -> Float[Tensor, "B T"]:
    """Every kept row counts the same, whichever rollout it sits in (D3S, ssToken)."""
    return weight_BT / max(totals.kept_tokens, 1)


def response_token_mean(
    weight_BT: Float[Tensor, "B T"], totals: BatchTotals
) -> Float[Tensor, "B T"]:
    """Divided by all response rows, kept or not: keeping fewer makes a smaller step (PRIOR)."""
    return weight_BT / max(totals.response_tokens, 1)


def sampled_token_mean(
    weight_BT: Float[Tensor, "B T"], totals: BatchTotals
) -> Float[Tensor, "B T"]:
    """Divided by all rows that were sampled, dropped or not: a smaller budget makes a smaller step
    (D3S's option).
    """
    return weight_BT / max(totals.sampled_tokens, 1)


def seq_mean_token_sum(
    weight_BT: Float[Tensor, "B T"], totals: BatchTotals
) -> Float[Tensor, "B T"]:
    """The sum over a rollout's rows, then the mean over rollouts: the plain policy gradient (Soft
    Tokens).
    """
    return weight_BT / max(totals.rollouts, 1)


def pair_mean(weight_BT: Float[Tensor, "B T"], totals: BatchTotals) -> Float[Tensor, "B T"]:
    """The mean over pairs (cDPO)."""
    return weight_BT / max(totals.pairs, 1)


LOSS_AGGREGATIONS: Mapping[LossAggregation, LossAggregationFn] = {
    "seq_mean_token_mean": seq_mean_token_mean,
    "token_mean": token_mean,
    "response_token_mean": response_token_mean,
    "sampled_token_mean": sampled_token_mean,
    "seq_mean_token_sum": seq_mean_token_sum,
    "pair_mean": pair_mean,
}
"""Every average by the name that recipes use."""

assert set(LOSS_AGGREGATIONS) == set(get_args(LossAggregation)), (
    "every average has a function, and the other way round"
)
