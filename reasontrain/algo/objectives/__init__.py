"""One file per objective: a loss per row or per pair, not masked or averaged (see `reduce`).

A row objective maps one row's statistics to one loss while its logits are alive. A sum objective,
whose non-linearity comes after a sum over a response, is given differentiable log-probs of whole
responses. An objective is a frozen dataclass: its fields are its knobs and its call is its
mathematics. It states which evidence it `required_evidence`, whether it asks for a `teacher`, and
whether it `score_at_sampling_temperature` (is scored at the sampler's temperature; at 1 otherwise).
"""

from __future__ import annotations

from reasontrain.algo.objectives.distill import Distill
from reasontrain.algo.objectives.dpo import Dpo
from reasontrain.algo.objectives.grpo import Grpo
from reasontrain.algo.objectives.gspo import Gspo
from reasontrain.algo.objectives.nll import Nll
from reasontrain.algo.objectives.reinforce import Reinforce
from reasontrain.algo.objectives.soft_reinforce import SoftReinforce

TokenObjective = Nll | Distill | Grpo | Reinforce | SoftReinforce
SequenceObjective = Gspo | Dpo
Objective = TokenObjective | SequenceObjective

__all__ = [
    "Distill",
    "Dpo",
    "Grpo",
    "Gspo",
    "Nll",
    "Objective",
    "Reinforce",
    "SequenceObjective",
    "SoftReinforce",
    "TokenObjective",
]
