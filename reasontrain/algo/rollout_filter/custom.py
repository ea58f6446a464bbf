"""Rollout filters of plug-ins."""

from __future__ import annotations

from typing import Annotated, Protocol, runtime_checkable

from reasontrain.algo._plugin_checks import not_part_of_batch
from reasontrain.plugins import Component
from reasontrain.types import Batch


@runtime_checkable
class CustomFilter(Protocol):
    """A rollout filter of a plug-in."""

    @property
    def kind(self) -> str:
        """The `kind` that names it in the recipe."""
        ...

    def kept_share(self, progress: float) -> float:
        """Fraction of rollouts that it keeps at this progress of the run."""
        ...

    def __call__(self, batch: Batch) -> Batch:
        """The batch with the kept rollouts."""
        ...


FilterPlugin = Annotated[
    CustomFilter,
    Component(
        key="rollout_filter",
        noun="a rollout filter",
        members=("kept_share",),
        arguments=("batch",),
        check_result=not_part_of_batch,
    ),
]
