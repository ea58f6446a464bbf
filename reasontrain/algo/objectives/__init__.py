"""Objectives, one file each: a loss per token or per pair, without masks or aggregation.

A token objective maps the statistics of one position to one loss while its logits are in memory. A
sequence objective applies a nonlinear function to sums over a response, so it gets differentiable
log-probs of whole responses. An objective is a frozen dataclass whose fields are its settings and
whose call is the formula. It declares `required_evidence`, `needs_teacher`, and
`score_at_sampling_temperature` (the policy is scored at the sampler's temperature; otherwise at 1).
Losses are aggregated in `algo.loss_aggregation`.
"""

from __future__ import annotations

from reasontrain.algo.objectives.cispo import Cispo
from reasontrain.algo.objectives.custom import ObjectivePlugin
from reasontrain.algo.objectives.distill import Distill
from reasontrain.algo.objectives.dpo import Dpo
from reasontrain.algo.objectives.entropy_aware_distill import EntropyAwareDistill
from reasontrain.algo.objectives.grpo import Grpo
from reasontrain.algo.objectives.gspo import Gspo
from reasontrain.algo.objectives.kl_cov import KlCov
from reasontrain.algo.objectives.nll import Nll
from reasontrain.algo.objectives.reinforce import Reinforce
from reasontrain.algo.objectives.sampled_distill import SampledDistill
from reasontrain.algo.objectives.soft_reinforce import SoftReinforce

TokenObjective = (
    Nll
    | Distill
    | Grpo
    | Cispo
    | KlCov
    | Reinforce
    | SoftReinforce
    | SampledDistill
    | EntropyAwareDistill
    | ObjectivePlugin
)
SequenceObjective = Gspo | Dpo
Objective = TokenObjective | SequenceObjective

__all__ = [
    "Cispo",
    "Distill",
    "Dpo",
    "EntropyAwareDistill",
    "Grpo",
    "Gspo",
    "KlCov",
    "Nll",
    "Objective",
    "Reinforce",
    "SampledDistill",
    "SequenceObjective",
    "SoftReinforce",
    "TokenObjective",
]
