"""Settings of learning from a batch of rollouts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from reasontrain.data.micro_batches import Layout
from reasontrain.recipe.cluster import Zero
from reasontrain.recipe.constraints import KIND, Count, Decay
from reasontrain.types import AtLeastOne, NotNegative, Positive


@dataclass(frozen=True, kw_only=True)
class AdamW:
    """Adam with decoupled weight decay, which norms and biases do not get.

    Loshchilov and Hutter 2019.
    """

    kind: Literal["adamw"] = "adamw"
    beta1: Decay = 0.9
    beta2: Decay = 0.999
    eps: Positive = 1e-8
    weight_decay: NotNegative = 0.0


@dataclass(frozen=True, kw_only=True)
class Muon:
    """Orthogonalised momentum for matrices of the trunk (Jordan et al. 2024), AdamW for the rest.

    The rest are embeddings, head, norms and biases. `matrix_lr` is the learning rate of Muon and
    `learn.lr` that of AdamW. Both follow one schedule.
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
    """Optimiser steps on a batch of rollouts.

    A step of the run samples one batch and learns from it in `updates_per_batch` optimiser steps,
    which pass over the batch `epochs_per_batch` times. Each pass deals the rollouts (or pairs) out
    to `updates_per_batch / epochs_per_batch` mini-batches, one optimiser step each; every pass
    visits the same mini-batches in the same order. Log-probs of the policy, advantages, evidence
    and selection are fixed once per batch, before the first update. In TRL's GRPOConfig,
    `num_iterations` is `epochs_per_batch`, and `steps_per_generation` divided by
    `gradient_accumulation_steps` is the number of mini-batches.

    The learning rate's schedule and `max_nonfinite` count optimiser steps; `steps`, checkpoints,
    evaluations and weight versions count batches.

    Attributes:
        lr: the peak learning rate.
        rollouts_per_step: rollouts of a batch.
        optimizer: AdamW or Muon.
        schedule: decay of the rate after warm-up, over all optimiser steps of the run.
        warmup_steps: optimiser steps of linear warm-up.
        final_lr_share: the rate at the end, as a share of the peak.
        schedule_steps: steps of the run that the rate's schedule, keep ratios and `progress` span;
            None: `steps`. Set it to train the first part of a longer run, or to extend a run
            without stretching its schedules.
        max_grad_norm: gradients are scaled down to this norm; None does not clip.
        micro_batch_tokens: most tokens of one forward pass; it cannot change a gradient.
        layout: padded or packed micro-batches.
        old_logp: whose log-probs the importance ratio divides by. `learner` scores the rollouts
            again before the first update. `sampler` takes those that were sampled with, which costs
            nothing but puts the difference between decoding and training into the ratio; nothing
            may be truncated from its distribution. `auto` takes the sampler's if rollouts are
            sampled one step ahead (`cluster.overlap`), where the ratio corrects for that, or if the
            model computes in float32, the ratio is of tokens and there is one update per batch;
            otherwise, and with a `correction`, the learner's.
        max_nonfinite: number of consecutive optimiser steps with a non-finite gradient after which
            the run stops; each of them is skipped.
        updates_per_batch: optimiser steps on each batch.
        epochs_per_batch: passes over each batch; it divides `updates_per_batch`.
        zero: DeepSpeed ZeRO, for the learner ranks of a `cluster`.
        sequence_parallel: number of neighbouring learner ranks that share each micro-batch, every
            one with a part of the positions of all its rows (DeepSpeed-Ulysses, Jacobs et al.
            2023): each then keeps that part of the activations. It divides `cluster.learners` and
            the attention heads, and cannot change a gradient.
        activation_offload: keep the inputs of layers, which `model.gradient_checkpointing` saves
            for the backward pass, in main memory: a GPU then holds one hidden state per token and
            layer less, for a copy to main memory and one back. It needs gradient checkpointing.
    """

    lr: Positive
    rollouts_per_step: AtLeastOne
    optimizer: Annotated[AdamW | Muon, KIND] = field(default_factory=AdamW)
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup_steps: Count = 0
    final_lr_share: NotNegative = 0.0
    schedule_steps: AtLeastOne | None = None
    max_grad_norm: Positive | None = 1.0
    micro_batch_tokens: AtLeastOne = 16384
    layout: Layout = "padded"
    old_logp: Literal["auto", "sampler", "learner"] = "auto"
    max_nonfinite: AtLeastOne = 3
    updates_per_batch: AtLeastOne = 1
    epochs_per_batch: AtLeastOne = 1
    zero: Zero | None = None
    sequence_parallel: AtLeastOne = 1
    activation_offload: bool = False

    @property
    def mini_batches(self) -> int:
        """Number of mini-batches of a batch: optimiser steps per pass over it."""
        return self.updates_per_batch // self.epochs_per_batch
