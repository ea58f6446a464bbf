"""Learner settings: the optimiser, its schedule and the batch of a step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from reasontrain.data.micro_batches import Layout
from reasontrain.recipe.cluster import Zero
from reasontrain.recipe.constraints import KIND, Count, Decay
from reasontrain.types import AtLeastOne, NotNegative, Positive


@dataclass(frozen=True, kw_only=True)
class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019); none for norms and biases."""

    kind: Literal["adamw"] = "adamw"
    beta1: Decay = 0.9
    beta2: Decay = 0.999
    eps: Positive = 1e-8
    weight_decay: NotNegative = 0.0


@dataclass(frozen=True, kw_only=True)
class Muon:
    """Orthogonalised momentum for matrices of the trunk (Jordan et al. 2024), AdamW for embeddings,
    head, norms and biases.

    `matrix_lr` is Muon's own rate; `learn.lr` is AdamW's. Both follow one schedule.
    """

    kind: Literal["muon"] = "muon"
    matrix_lr: Positive = 0.02
    momentum: Decay = 0.95
    beta1: Decay = 0.9
    beta2: Decay = 0.999
    eps: Positive = 1e-8
    weight_decay: NotNegative = 0.0


@dataclass(frozen=True, kw_only=True)
class LearnSettings:
    """One optimiser step.

    `micro_batch_tokens` bounds what one forward holds and cannot change a gradient. `old_logp:
    auto` takes the sampler's log-probs where nothing was truncated from its distribution, and
    otherwise the learner's. After `max_nonfinite` steps in a row whose gradient was not finite
    (each is skipped) the run stops. `zero` is for the ranks of a `cluster`.
    """

    lr: Positive
    rollouts_per_step: AtLeastOne
    optimizer: Annotated[AdamW | Muon, KIND] = field(default_factory=AdamW)
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup_steps: Count = 0
    final_lr_share: NotNegative = 0.0
    max_grad_norm: Positive | None = 1.0
    micro_batch_tokens: AtLeastOne = 16384
    layout: Layout = "padded"
    old_logp: Literal["auto", "learner"] = "auto"
    max_nonfinite: AtLeastOne = 3
    zero: Zero | None = None
