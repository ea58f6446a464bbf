"""One file per objective: a loss per row, not masked, weighted or averaged (see `reduce`).

An objective is a frozen dataclass: its fields are its knobs and its call is its mathematics. It states which evidence it `needs`,
whether it asks for a `teacher`, and whether it `follows_sampler` (is scored at the sampler's temperature; at 1 otherwise).
"""

from __future__ import annotations

from reasontrain.objectives.distill import Distill
from reasontrain.objectives.grpo import Grpo
from reasontrain.objectives.nll import Nll
from reasontrain.objectives.reinforce import Reinforce

Objective = Nll | Distill | Grpo | Reinforce

__all__ = ["Distill", "Grpo", "Nll", "Objective", "Reinforce"]
