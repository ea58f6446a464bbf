"""History settings: the earlier version of the model that measures `history_logp`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Gt, Lt


@dataclass(frozen=True, kw_only=True)
class StartWeights:
    """The weights before the first step: a frozen copy, or the policy with its adapters off."""

    kind: Literal["start"] = "start"


@dataclass(frozen=True, kw_only=True)
class MovingAverage:
    """decay * history + (1 - decay) * policy after every step, starting from the start weights.

    It is stored in float32, unsharded on every rank. With adapters it averages the merged weights.
    """

    kind: Literal["ema"] = "ema"
    decay: Annotated[float, Gt(0), Lt(1)] = 0.99


@dataclass(frozen=True, kw_only=True)
class PastCheckpoint:
    """The model at `path`: a directory under `checkpoints/` of an earlier run, or its `final/`."""

    path: str
    kind: Literal["checkpoint"] = "checkpoint"


History = StartWeights | MovingAverage | PastCheckpoint
