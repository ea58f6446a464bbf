"""Evidence of plug-ins: a number for each token, computed from evidence that was measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Protocol, runtime_checkable

from jaxtyping import Float

from reasontrain.algo._plugin_checks import not_a_column, not_evidence
from reasontrain.algo.evidence import Evidence, Unit, declare
from reasontrain.plugins import Component
from reasontrain.types import Batch

if TYPE_CHECKING:
    from torch import Tensor


@runtime_checkable
class CustomEvidence(Protocol):
    """A kind of evidence of a plug-in."""

    @property
    def kind(self) -> str:
        """The `kind` that names it in the recipe."""
        ...

    @property
    def required_evidence(self) -> frozenset[str]:
        """The evidence that it is computed from."""
        ...

    @property
    def unit(self) -> Unit:
        """The unit of its numbers."""
        ...

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the greatest possible value, in that unit."""
        ...

    def __call__(self, batch: Batch) -> Float[Tensor, "B T"]:
        """The number of each token; it is read at response tokens."""
        ...


EvidencePlugin = Annotated[
    CustomEvidence,
    Component(
        key="evidence",
        noun="a kind of evidence",
        members=("required_evidence", "unit", "bounds"),
        arguments=("batch",),
        check=not_evidence,
        check_result=not_a_column,
    ),
]


def declare_custom(evidence: Mapping[str, CustomEvidence]) -> None:
    """Add evidence of plug-ins to the table of this process, by name."""
    for name, custom in evidence.items():
        declare(
            Evidence(
                name=name,
                description=(custom.__doc__ or custom.kind).partition("\n")[0].rstrip("."),
                chart=name,
                label=name,
                unit=custom.unit,
                bounds=custom.bounds,
                source="plugin",
            )
        )


def with_inputs(names: frozenset[str], evidence: Mapping[str, CustomEvidence]) -> frozenset[str]:
    """These names and those of the evidence that plug-ins among them are computed from."""
    for name in reversed(list(evidence)):  # each may read those before it
        if name in names:
            names |= evidence[name].required_evidence
    return names


def with_custom(
    batch: Batch, names: frozenset[str], evidence: Mapping[str, CustomEvidence]
) -> Batch:
    """The batch with the named evidence of plug-ins, computed in order.

    Args:
        batch: the rollouts with all other evidence.
        names: the evidence that is read in this step.
        evidence: the plug-ins by name.

    Raises:
        RunError: a plug-in fails, or returns something else.
    """
    for name, custom in evidence.items():
        if name in names:
            column_BT = custom(batch).float().where(batch.is_response_BT, 0.0)
            batch = batch.with_evidence({name: column_BT})
    return batch
