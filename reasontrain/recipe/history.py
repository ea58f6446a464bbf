"""What the evidence `history_logp` is measured by: an earlier version of the model that is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Gt, Lt


@dataclass(frozen=True, kw_only=True)
class StartWeights:
    """The weights before the first step: a frozen copy, or the policy itself with its adapters
    switched off.
    """

    kind: Literal["start"] = "start"


@dataclass(frozen=True, kw_only=True)
class MovingAverage:
    """decay * history + (1 - decay) * policy after every step, from the start weights on; float32,
    whole on every rank.

    With adapters it is the average of the merged weights.
    """

    kind: Literal["ema"] = "ema"
    decay: Annotated[float, Gt(0), Lt(1)] = 0.99


@dataclass(frozen=True, kw_only=True)
class PastCheckpoint:
    """The model at `path`, as any model is named: a directory under `checkpoints/` of an earlier
    run, or its `final/`.
    """

    path: str
    kind: Literal["checkpoint"] = "checkpoint"


History = StartWeights | MovingAverage | PastCheckpoint
