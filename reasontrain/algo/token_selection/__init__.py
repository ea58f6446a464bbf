"""Selection rules: each turns evidence into a weight for every token, 0 where it is not selected.

A rule is a frozen dataclass. Its fields are its knobs, `required_evidence` names the evidence it
reads, `scope` says whether a rollout's weights depend on that rollout alone, and calling it with
the batch of a whole optimiser step gives the weights. Rules that drop whole rollouts, before there
is evidence, are in `keep_ratio`.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from reasontrain.algo.rollout_filter import AllRollouts, RolloutFilter
from reasontrain.algo.rollout_filter.max_variance import MaxVariance
from reasontrain.algo.rollout_filter.random import RandomRollouts
from reasontrain.algo.schedule import LinearSchedule
from reasontrain.algo.token_selection.advantage_entropy import AdvantageEntropy
from reasontrain.algo.token_selection.all_tokens import AllTokens
from reasontrain.algo.token_selection.contrast import Contrast
from reasontrain.algo.token_selection.prior import Prior
from reasontrain.algo.token_selection.random import Random
from reasontrain.algo.token_selection.rules import SelectionRule
from reasontrain.algo.token_selection.shuffled import ShuffledWeights
from reasontrain.algo.token_selection.sstoken import SsToken
from reasontrain.algo.token_selection.tip import Tip
from reasontrain.algo.token_selection.top_entropy import TopEntropy
from reasontrain.types import Batch, Stats

TokenSelection = SelectionRule | ShuffledWeights


@runtime_checkable
class HasMetrics(Protocol):
    """A rule that has something to say of a step beside its weights."""

    def metrics(self, batch: Batch) -> Stats:
        """Named numbers of the step."""
        ...


__all__ = [
    "AdvantageEntropy",
    "AllRollouts",
    "AllTokens",
    "Contrast",
    "HasMetrics",
    "LinearSchedule",
    "MaxVariance",
    "Prior",
    "Random",
    "RandomRollouts",
    "RolloutFilter",
    "SelectionRule",
    "ShuffledWeights",
    "SsToken",
    "Tip",
    "TokenSelection",
    "TopEntropy",
]
