"""Settings of the unconditional reference, which scores responses without their condition (PRIOR's
P).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, Lt

from reasontrain.models import Lora, ModelSettings
from reasontrain.types import AtLeastOne, Positive

Condition = Literal["prompt", "image"]
"""What the reference does not see: the whole prompt, or its image alone (the usual one where
there are images).
"""


@dataclass(frozen=True, kw_only=True)
class UncondTuned:
    """The start checkpoint (or `model`), tuned for one epoch on the responses alone, then frozen;
    closest to the paper.

    By adapters, or in all its weights (`lora: null`), as a model must that knows nothing yet. A
    reference that has learned its responses by heart gives P = 1 everywhere: hence one epoch, or
    `folds` of the responses, each scored by a reference tuned on the others (equal responses lie in
    one fold). `seed` is the order of the epoch, and its own, so that runs with several seeds share
    one column. `condition` is what the reference does not see; where that is the prompt, `header`
    is the text before each response (left out: what the chat template puts before an answer, or
    "Answer:").
    """

    kind: Literal["uncond_tuned"] = "uncond_tuned"
    model: ModelSettings | None = None
    lr: Positive = 2e-4
    rollouts_per_step: AtLeastOne = 64
    lora: Lora | None = field(default_factory=Lora)
    folds: AtLeastOne = 1
    seed: Annotated[int, Ge(0), Lt(2**62)] = 0
    condition: Condition | None = None
    header: str | None = None


@dataclass(frozen=True, kw_only=True)
class UncondBase:
    """The start checkpoint (or `model`) as it is: without training, but a chat model without a
    question is erratic at first.
    """

    kind: Literal["uncond_base"] = "uncond_base"
    model: ModelSettings | None = None
    condition: Condition | None = None
    header: str | None = None


@dataclass(frozen=True, kw_only=True)
class SmallReference:
    """A smaller model of the same tokenizer, as it is: cheaper, with flatter weights."""

    kind: Literal["small_ref"] = "small_ref"
    model: ModelSettings
    condition: Condition | None = None
    header: str | None = None


Unconditional = UncondTuned | UncondBase | SmallReference
