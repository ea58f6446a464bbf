"""The union of selection rules; to add a rule, add one file and one name here."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from reasontrain.algo.token_selection.advantage_entropy import AdvantageEntropy
from reasontrain.algo.token_selection.all_tokens import AllTokens
from reasontrain.algo.token_selection.clip_cov import ClipCov
from reasontrain.algo.token_selection.contrast import Contrast
from reasontrain.algo.token_selection.prior import Prior
from reasontrain.algo.token_selection.random import Random
from reasontrain.algo.token_selection.rho1 import Rho1
from reasontrain.algo.token_selection.sstoken import SsToken
from reasontrain.algo.token_selection.stapo import Stapo
from reasontrain.algo.token_selection.tip import Tip
from reasontrain.algo.token_selection.top_entropy import TopEntropy


@runtime_checkable
class DependsOnProgress(Protocol):
    """A rule that reads less evidence at some points of the run."""

    def evidence_at(self, progress: float) -> frozenset[str]:
        """The evidence that is read at this progress of the run."""
        ...


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
    | Stapo
    | ClipCov
)


def evidence_at(rule: SelectionRule | DependsOnProgress, progress: float) -> frozenset[str]:
    """The evidence that a rule reads at this progress of the run."""
    return (
        rule.evidence_at(progress)
        if isinstance(rule, DependsOnProgress)
        else rule.required_evidence
    )
