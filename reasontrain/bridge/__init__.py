"""Token selection and loss aggregation inside TRL's SFT, DPO, GRPO and distillation trainers.

One mixin for each trainer: `class Trainer(GRPOTokenSelection, GRPOTrainer)`. `layout` maps TRL's
micro-batches to a `Batch` and back, `selection` runs the rule on all of an optimiser step, and
`contract` lists what is relied on in TRL.
"""

from reasontrain.bridge.distillation import DistillationTokenSelection
from reasontrain.bridge.dpo import DPOTokenSelection
from reasontrain.bridge.grpo import GRPOTokenSelection
from reasontrain.bridge.sft import SFTTokenSelection

__all__ = [
    "DPOTokenSelection",
    "DistillationTokenSelection",
    "GRPOTokenSelection",
    "SFTTokenSelection",
]
