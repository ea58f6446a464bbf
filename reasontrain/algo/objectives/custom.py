"""Token objectives of plug-ins."""

from __future__ import annotations

from typing import Annotated, Literal, Protocol, runtime_checkable

from reasontrain.algo._plugin_checks import not_an_objective, not_losses
from reasontrain.plugins import Component
from reasontrain.types import Losses, TokenFields, TokenStats


@runtime_checkable
class CustomObjective(Protocol):
    """A token objective of a plug-in."""

    @property
    def kind(self) -> str:
        """The `kind` that names it in the recipe."""
        ...

    @property
    def granularity(self) -> Literal["token"]:
        """One loss per token."""
        ...

    @property
    def needs_teacher(self) -> bool:
        """True if the loss reads divergences from a teacher."""
        ...

    @property
    def score_at_sampling_temperature(self) -> bool:
        """True if logits are divided by the sampler's temperature."""
        ...

    @property
    def required_evidence(self) -> frozenset[str]:
        """The evidence that the loss reads."""
        ...

    def __call__(self, policy: TokenStats, batch: TokenFields) -> Losses:
        """One loss per token."""
        ...


ObjectivePlugin = Annotated[
    CustomObjective,
    Component(
        key="objective",
        noun="a token objective",
        members=(
            "granularity",
            "needs_teacher",
            "score_at_sampling_temperature",
            "required_evidence",
        ),
        arguments=("policy", "batch"),
        check=not_an_objective,
        check_result=not_losses,
    ),
]
