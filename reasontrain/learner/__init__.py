"""Learners measure evidence of rollouts and change the policy's weights.

`Learner` is what the loop sees, in one process or many. `policy_learner` implements it from parts:
an `engine` (plain PyTorch, or `zero` for ranks) and an `observer`; `factory` builds it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from reasontrain.algo.loss_aggregation import LossAggregationFn
from reasontrain.algo.objectives import Objective
from reasontrain.types import Batch, Stats, Weights

__all__ = ["Learner", "LossAggregationFn"]


@runtime_checkable
class Learner(Protocol):
    """The learner as the loop sees it, whether it is one process or sixty-four."""

    @property
    def steps_done(self) -> int | None:
        """The number of batches that the weights have learned from.

        None if the weights are those of no step: in the middle of a batch's updates, or after a
        rank failed. They cannot be saved then.
        """
        ...

    def observe(self, batch: Batch, required_evidence: frozenset[str]) -> Batch:
        """Measure this evidence without gradient, and return the batch with it.

        Wide by-products stay with the learner until `step`.
        """
        ...

    def step(
        self,
        batch: Batch,
        weight_BT: Float[Tensor, "B T"],
        objective: Objective,
        loss_aggregation: LossAggregationFn,
    ) -> Stats:
        """Learn from a batch of rollouts, in one optimiser step or several.

        Args:
            batch: the rollouts, with the evidence that the objective reads.
            weight_BT: the selection's weight of each token; zero leaves it out.
            objective: the loss of a token, a response or a pair.
            loss_aggregation: divides the sum of losses by totals of an optimiser step.

        Returns:
            Numbers of the step, with the seconds of `timing.LEARNER_PARTS`.
        """
        ...

    def matrix_rate(self) -> float:
        """Measure matrix products in the model's dtype: operations per second of all devices."""
        ...

    def attention(self) -> str:
        """The policy's attention implementation, as chosen when it was loaded."""
        ...

    def weights(self) -> Weights:
        """The policy's weights, for samplers."""
        ...

    def save(self, directory: Path) -> None:
        """Write a directory that `from_pretrained` loads, with what a resumed run needs."""
        ...

    def restore(self, directory: Path) -> None:
        """Continue from what `save` wrote."""
        ...

    def export(self, directory: Path) -> None:
        """Write the final model, for `from_pretrained`."""
        ...
