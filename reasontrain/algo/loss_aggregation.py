"""Loss aggregation: the only place where a loss is divided.

A step's loss is sum(loss_weight * loss). Loss weights are fixed for the whole step before its first
backward pass, from totals of the whole step over all ranks, so that cutting the step into
micro-batches or ranks cannot change a gradient. Fractional weights do not change a total, and a
total of 0 divides by 1: if nothing is selected, the loss is 0.
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
    "seq_mean_token_sum_norm",
    "pair_mean",
]


@runtime_checkable
class LossAggregationFn(Protocol):
    """A function of this module: token weights of the selection -> per-token loss weights."""

    def __call__(
        self, weight_BT: Float[Tensor, "B T"], totals: BatchTotals, /
    ) -> Float[Tensor, "B T"]:
        """Divide the weights by a total of the optimiser step."""
        ...


def seq_mean_token_mean(
    weight_BT: Float[Tensor, "B T"], totals: BatchTotals
) -> Float[Tensor, "B T"]:
    """Mean over a rollout's kept tokens, then over the rollouts that have any.

    TIP, arXiv 2604.14084, eq. 9.
    """
    kept_B1 = (weight_BT != 0).sum(1, keepdim=True).clamp(min=1)
    return weight_BT / kept_B1 / max(totals.kept_rollouts, 1)


def token_mean(weight_BT: Float[Tensor, "B T"], totals: BatchTotals) -> Float[Tensor, "B T"]:
    """Mean over all kept tokens, so that every kept token counts the same (D3S, ssToken)."""
    return weight_BT / max(totals.kept_tokens, 1)


def response_token_mean(
    weight_BT: Float[Tensor, "B T"], totals: BatchTotals
) -> Float[Tensor, "B T"]:
    """Sum divided by the number of response tokens, kept or not (PRIOR).

    Keeping fewer tokens makes the update smaller.
    """
    return weight_BT / max(totals.response_tokens, 1)


def sampled_token_mean(
    weight_BT: Float[Tensor, "B T"], totals: BatchTotals
) -> Float[Tensor, "B T"]:
    """Sum divided by the number of sampled tokens, filtered rollouts included (an option of D3S).

    Keeping fewer rollouts or tokens makes the update smaller.
    """
    return weight_BT / max(totals.sampled_tokens, 1)


def seq_mean_token_sum(
    weight_BT: Float[Tensor, "B T"], totals: BatchTotals
) -> Float[Tensor, "B T"]:
    """Sum over a rollout's tokens, then mean over rollouts: plain policy gradient (Soft Tokens)."""
    return weight_BT / max(totals.rollouts, 1)


def seq_mean_token_sum_norm(
    weight_BT: Float[Tensor, "B T"], totals: BatchTotals
) -> Float[Tensor, "B T"]:
    """Sum over a rollout's tokens, divided by `sample.max_tokens`, then mean over rollouts.

    Dr. GRPO, arXiv 2503.20783, section 3.2: every token of every rollout counts the same, and a
    long wrong answer is not punished less per token than a short one. TRL's `dr_grpo`.
    """
    return weight_BT / max(totals.rollouts, 1) / max(totals.max_response_tokens, 1)


def pair_mean(weight_BT: Float[Tensor, "B T"], totals: BatchTotals) -> Float[Tensor, "B T"]:
    """Mean over preference pairs (cDPO)."""
    return weight_BT / max(totals.pairs, 1)


LOSS_AGGREGATIONS: Mapping[LossAggregation, LossAggregationFn] = {
    "seq_mean_token_mean": seq_mean_token_mean,
    "token_mean": token_mean,
    "response_token_mean": response_token_mean,
    "sampled_token_mean": sampled_token_mean,
    "seq_mean_token_sum": seq_mean_token_sum,
    "seq_mean_token_sum_norm": seq_mean_token_sum_norm,
    "pair_mean": pair_mean,
}
"""Every loss aggregation by the name that recipes use."""

assert set(LOSS_AGGREGATIONS) == set(get_args(LossAggregation)), (
    "every average has a function, and the other way round"
)
