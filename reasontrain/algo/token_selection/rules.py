"""The union of selection rules; to add one to the package, add one file and one name here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Protocol, runtime_checkable

from jaxtyping import Float

from reasontrain.algo._plugin_checks import not_names_of_evidence, not_weights
from reasontrain.algo.token_selection.advantage_entropy import AdvantageEntropy
from reasontrain.algo.token_selection.all_tokens import AllTokens
from reasontrain.algo.token_selection.clip_cov import ClipCov
from reasontrain.algo.token_selection.contrast import Contrast
from reasontrain.algo.token_selection.dft import Dft
from reasontrain.algo.token_selection.eaft import Eaft
from reasontrain.algo.token_selection.fire_opd import FireOpd
from reasontrain.algo.token_selection.first_segment import FirstSegment
from reasontrain.algo.token_selection.iw_opd import IwOpd
from reasontrain.algo.token_selection.paced import Paced
from reasontrain.algo.token_selection.prior import Prior
from reasontrain.algo.token_selection.random import Random
from reasontrain.algo.token_selection.rho1 import Rho1
from reasontrain.algo.token_selection.selectkd import SelecTkd
from reasontrain.algo.token_selection.sstoken import SsToken
from reasontrain.algo.token_selection.stapo import Stapo
from reasontrain.algo.token_selection.tip import Tip
from reasontrain.algo.token_selection.tis_dpo import TisDpo
from reasontrain.algo.token_selection.top_entropy import TopEntropy
from reasontrain.plugins import Component
from reasontrain.types import Batch

if TYPE_CHECKING:
    from torch import Tensor


@runtime_checkable
class DependsOnProgress(Protocol):
    """A rule that reads less evidence at some points of the run."""

    def evidence_at(self, progress: float) -> frozenset[str]:
        """The evidence that is read at this progress of the run."""
        ...


@runtime_checkable
class CustomSelection(Protocol):
    """A selection rule of a plug-in."""

    @property
    def kind(self) -> str:
        """The `kind` that names it in the recipe."""
        ...

    @property
    def required_evidence(self) -> frozenset[str]:
        """The evidence that it reads."""
        ...

    def kept_share(self, progress: float) -> float:
        """The largest fraction of response tokens that it keeps at this progress of the run."""
        ...

    def __call__(self, batch: Batch) -> Float[Tensor, "B T"]:
        """The weight of each token, 0 outside responses."""
        ...


SelectionPlugin = Annotated[
    CustomSelection,
    Component(
        key="token_selection",
        noun="a selection rule",
        members=("required_evidence", "kept_share"),
        arguments=("batch",),
        check=not_names_of_evidence,
        check_result=not_weights,
    ),
]
SelectionRule = (
    AllTokens
    | Random
    | TopEntropy
    | Tip
    | AdvantageEntropy
    | SsToken
    | Prior
    | Rho1
    | Contrast
    | Dft
    | Eaft
    | IwOpd
    | SelecTkd
    | FirstSegment
    | Paced
    | FireOpd
    | TisDpo
    | Stapo
    | ClipCov
)


def evidence_at(
    rule: SelectionRule | CustomSelection | DependsOnProgress, progress: float
) -> frozenset[str]:
    """The evidence that a rule reads at this progress of the run."""
    return (
        rule.evidence_at(progress)
        if isinstance(rule, DependsOnProgress)
        else rule.required_evidence
    )
