"""Sampling settings of rollouts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from reasontrain.data.sampling import Sampling
from reasontrain.recipe.constraints import KIND_OR_PLUGIN
from reasontrain.recipe.engines import EngineSettings, LocalEngine
from reasontrain.types import AtLeastOne


@dataclass(frozen=True, kw_only=True)
class SampleSettings(Sampling):
    """Sampling settings of on-policy rollouts.

    Attributes:
        group_size: rollouts per prompt.
        truncated: treatment of a rollout that reached `max_tokens`: score it like any other, give
            it an advantage and mask it from training, or drop it before advantages are computed.
        engine: the sampler engine.
    """

    learned: ClassVar[bool] = True
    group_size: AtLeastOne = 1
    truncated: Literal["score", "mask", "drop"] = "score"
    engine: Annotated[EngineSettings, KIND_OR_PLUGIN] = field(default_factory=LocalEngine)
