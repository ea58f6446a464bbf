"""Learners: they observe evidence and take optimiser steps.

`local` is the reference that every other one must equal.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from reasontrain.algo.objectives import Objective
from reasontrain.types import Batch, BatchTotals, Stats, Weights

LossAggregationFn = Callable[[Float[Tensor, "B T"], BatchTotals], Float[Tensor, "B T"]]


@runtime_checkable
class Learner(Protocol):
    """What the loop asks of a learner, whether it is one process or sixty-four."""

    def observe(self, batch: Batch, required_evidence: frozenset[str]) -> Batch:
        """The batch with the evidence named in `required_evidence`, without gradient; wide
        by-products stay with the learner until `step`.
        """
        ...

    def step(
        self,
        batch: Batch,
        weight_BT: Float[Tensor, "B T"],
        objective: Objective,
        loss_aggregation: LossAggregationFn,
    ) -> Stats:
        """One optimiser step on the weighted, averaged loss; with its numbers the seconds of
        `timing.LEARNER_PARTS`.
        """
        ...

    def matrix_rate(self) -> float:
        """Operations per second of matrix products in the model's dtype, measured now, on all of
        its devices together.
        """
        ...

    def weights(self) -> Weights:
        """The policy's weights, for samplers."""
        ...

    def save(self, directory: Path) -> None:
        """Write a directory that `from_pretrained` loads, with what is needed to go on training."""
        ...

    def restore(self, directory: Path) -> None:
        """Go on from what `save` wrote."""
        ...

    def export(self, directory: Path) -> None:
        """Write the final model, for `from_pretrained`."""
        ...
