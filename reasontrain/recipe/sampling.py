"""Sampling settings of rollouts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from reasontrain.data.sampling import Sampling
from reasontrain.recipe.constraints import KIND_OR_PLUGIN, Count
from reasontrain.recipe.engines import EngineSettings, LocalEngine
from reasontrain.types import AtLeastOne, Truncated


@dataclass(frozen=True, kw_only=True)
class SampleSettings(Sampling):
    """Sampling settings of on-policy rollouts.

    Attributes:
        group_size: rollouts per prompt.
        truncated: treatment of a rollout that reached `max_tokens`: score it like any other, give
            it an advantage and mask it from training, or drop it before advantages are computed.
        refill_rounds: most further rounds of a step in which other prompts are sampled in the place
            of those whose rollouts all have one reward, until every group of the step has different
            ones (dynamic sampling, DAPO, arXiv 2503.14476); 0 trains on all groups. Rollouts of
            replaced groups count in the metrics of rewards, and in nothing that is learned.
        engine: the sampler engine.
    """

    learned: ClassVar[bool] = True
    group_size: AtLeastOne = 1
    truncated: Truncated = "score"
    refill_rounds: Count = 0
    engine: Annotated[EngineSettings, KIND_OR_PLUGIN] = field(default_factory=LocalEngine)
