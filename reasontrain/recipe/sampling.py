"""How the rollouts of a step are made."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from reasontrain.data.sampling import Sampling
from reasontrain.recipe.constraints import KIND
from reasontrain.recipe.engines import Engine, LocalEngine
from reasontrain.types import AtLeastOne


@dataclass(frozen=True, kw_only=True)
class SampleSettings(Sampling):
    """On-policy rollouts.

    `truncated` says what becomes of a rollout that ran into `max_tokens`: it is scored like any
    other, it earns credit but is masked from training, or it is dropped before credit is given.
    `engine` decodes them.
    """

    learned: ClassVar[bool] = True
    group_size: AtLeastOne = 1
    truncated: Literal["score", "mask", "drop"] = "score"
    engine: Annotated[Engine, KIND] = field(default_factory=LocalEngine)
