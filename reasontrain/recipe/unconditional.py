"""Settings of the unconditional reference, which scores responses without their condition.

Its probabilities are PRIOR's P.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge, Lt

from reasontrain.models import Lora, ModelSettings
from reasontrain.types import AtLeastOne, Positive

Condition = Literal["prompt", "image"]
"""The input that the reference does not see: the whole prompt, or its image only.

By default it is "image" if all problems have one, else "prompt".
"""


@dataclass(frozen=True, kw_only=True)
class UncondTuned:
    """The start checkpoint (or `model`), tuned for one epoch on the responses alone, then frozen.

    This is closest to the paper.

    Attributes:
        model: the model to tune; None is the recipe's model.
        lr: learning rate.
        rollouts_per_step: responses per optimiser step.
        lora: adapters to train; None trains all weights, which a model without any pretraining
            needs.
        folds: number of folds of the responses, each scored by a reference tuned on the others;
            equal responses are in one fold. A reference that has memorised its responses gives P =
            1 everywhere, which is why tuning takes one epoch.
        seed: seed of the epoch's order. It is separate from the run's, so that runs with several
            seeds share one file of evidence.
        condition: the input that the reference does not see.
        header: text before each response if the condition is the prompt; None is the text that the
            chat template writes before an answer, or "Answer:".
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
    """The start checkpoint (or `model`) without tuning.

    It costs no training, but the first tokens of a chat model without a question are erratic.
    """

    kind: Literal["uncond_base"] = "uncond_base"
    model: ModelSettings | None = None
    condition: Condition | None = None
    header: str | None = None


@dataclass(frozen=True, kw_only=True)
class SmallReference:
    """A smaller model with the same tokenizer, without tuning: cheaper, with flatter weights."""

    kind: Literal["small_ref"] = "small_ref"
    model: ModelSettings
    condition: Condition | None = None
    header: str | None = None


Unconditional = UncondTuned | UncondBase | SmallReference
