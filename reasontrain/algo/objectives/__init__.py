"""One file per objective: a loss per row or per pair, not masked or averaged (see `reduce`).

A row objective maps one row's statistics to one loss while its logits are alive. A sum objective, whose non-linearity comes after
a sum over a response, is given differentiable log-probs of whole responses. An objective is a frozen dataclass: its fields are
its knobs and its call is its mathematics. It states which evidence it `needs`, whether it asks for a `teacher`, and whether it
`follows_sampler` (is scored at the sampler's temperature; at 1 otherwise).
"""

from __future__ import annotations

from reasontrain.algo.objectives.distill import Distill
from reasontrain.algo.objectives.dpo import Dpo
from reasontrain.algo.objectives.grpo import Grpo
from reasontrain.algo.objectives.gspo import Gspo
from reasontrain.algo.objectives.nll import Nll
from reasontrain.algo.objectives.reinforce import Reinforce
from reasontrain.algo.objectives.soft_reinforce import SoftReinforce

RowObjective = Nll | Distill | Grpo | Reinforce | SoftReinforce
SumObjective = Gspo | Dpo
Objective = RowObjective | SumObjective

__all__ = ["Distill", "Dpo", "Grpo", "Gspo", "Nll", "Objective", "Reinforce", "RowObjective", "SoftReinforce", "SumObjective"]
