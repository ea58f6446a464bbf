"""Selection rules: from evidence to a weight for every token, 0 if it is not selected.

A rule is a frozen dataclass whose fields are its settings. `required_evidence` names the evidence
it reads, `kept_share(progress)` states the largest fraction of response tokens that it keeps at
that point of the run, and calling it with the batch of a whole step returns the weights. Filters of
whole rollouts, which run before evidence is measured, are in `algo.rollout_filter`.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from reasontrain.algo.keep_ratio_schedule import LinearSchedule
from reasontrain.algo.rollout_filter import AllRollouts, RolloutFilter
from reasontrain.algo.rollout_filter.max_variance import MaxVariance
from reasontrain.algo.rollout_filter.random import RandomRollouts
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
from reasontrain.algo.token_selection.rules import (
    CustomSelection,
    SelectionPlugin,
    SelectionRule,
    evidence_at,
)
from reasontrain.algo.token_selection.selectkd import SelecTkd
from reasontrain.algo.token_selection.shuffled import ShuffledWeights
from reasontrain.algo.token_selection.sstoken import SsToken
from reasontrain.algo.token_selection.stapo import Stapo
from reasontrain.algo.token_selection.tip import Tip
from reasontrain.algo.token_selection.tis_dpo import TisDpo
from reasontrain.algo.token_selection.top_entropy import TopEntropy
from reasontrain.types import Batch, Stats

TokenSelection = SelectionRule | ShuffledWeights | SelectionPlugin


def unread_evidence(
    rule: TokenSelection, others: frozenset[str], progress: float
) -> frozenset[str]:
    """The evidence of a rule that neither it nor anything else reads at this progress.

    Args:
        rule: the selection rule.
        others: the evidence that others, such as the objective, read.
        progress: the share of the run that is done, in [0, 1].
    """
    return rule.required_evidence - evidence_at(rule, progress) - others


def unshuffled(rule: TokenSelection) -> SelectionRule | CustomSelection:
    """The rule itself, or the one whose weights it shuffles."""
    return rule.of if isinstance(rule, ShuffledWeights) else rule


@runtime_checkable
class HasMetrics(Protocol):
    """A rule that also reports metrics of the step."""

    def metrics(self, batch: Batch) -> Stats:
        """Named metrics of the step."""
        ...


__all__ = [
    "AdvantageEntropy",
    "AllRollouts",
    "AllTokens",
    "ClipCov",
    "Contrast",
    "Dft",
    "Eaft",
    "FireOpd",
    "FirstSegment",
    "HasMetrics",
    "IwOpd",
    "LinearSchedule",
    "MaxVariance",
    "Paced",
    "Prior",
    "Random",
    "RandomRollouts",
    "Rho1",
    "RolloutFilter",
    "SelecTkd",
    "SelectionRule",
    "ShuffledWeights",
    "SsToken",
    "Stapo",
    "Tip",
    "TisDpo",
    "TokenSelection",
    "TopEntropy",
    "unread_evidence",
    "unshuffled",
]
