"""The learner that a recipe asks for, in this process: its models loaded, adapted and compared."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from reasontrain import models
from reasontrain.algo.evidence import forward_passes
from reasontrain.learner.history import (
    AdaptersOffHistory,
    FrozenHistory,
    History,
    MovingAverageHistory,
)
from reasontrain.learner.local import LocalLearner
from reasontrain.learner.lora import adapt
from reasontrain.learner.policy_module import FrozenModel, UnshardedModel
from reasontrain.models import ModelSettings, Policy
from reasontrain.models.attention import check
from reasontrain.recipe import MovingAverage, PastCheckpoint, Recipe


def make_learner(recipe: Recipe, teacher: FrozenModel | None = None) -> LocalLearner:
    """The learner with all that it compares with; `teacher` is one that lies elsewhere.

    Ranks join before (see `ranks`).
    """
    policy = models.load(recipe.model, trainable=True)
    if recipe.sample is not None and recipe.sample.thought is not None:
        models.keep_rms(policy.model, policy.input_space)
    if recipe.model.lora is not None:
        adapt(policy, recipe.model.lora)
    if teacher is None and recipe.teacher is not None:
        teacher = frozen(recipe, recipe.teacher, policy)
    reference = None
    measured = forward_passes(recipe.measured_evidence)
    if "reference" in measured and (recipe.reference or not recipe.model.lora):
        reference = frozen(
            recipe, recipe.reference or recipe.model, policy
        )  # else the adapters are switched off
    if "attention" in recipe.required_evidence:
        check(policy, recipe.importance)
    history = earlier(recipe, policy) if "history" in measured else History()
    kind: type[LocalLearner] = LocalLearner
    if recipe.learn.zero is not None:
        from reasontrain.learner.zero import ZeroLearner  # DeepSpeed is for those who ask for it

        kind = ZeroLearner
    return kind(
        policy,
        recipe.learn,
        steps=recipe.steps,
        temperature=recipe.temperature,
        teacher=teacher,
        reference=reference,
        history=history,
        importance=recipe.importance,
        export_dtype=recipe.model.export or recipe.model.dtype,
    )


def frozen(recipe: Recipe, settings: ModelSettings, policy: Policy) -> FrozenModel:
    """A model that is only compared with; that it speaks the same token ids was seen before it is
    loaded (see `assemble`).
    """
    device: Literal["cuda", "cpu"] = "cuda" if policy.device.type == "cuda" else "cpu"
    loaded = models.load(replace(settings, export=None, lora=None, device=device))
    zero = recipe.learn.zero
    if zero is not None and zero.frozen == "sharded":
        from reasontrain.learner.zero import ShardedModel

        return ShardedModel(loaded, zero, recipe.learn)
    return UnshardedModel(loaded)


def earlier(recipe: Recipe, policy: Policy) -> History:
    """The history model that the recipe asks for.

    A copy computes as the policy does, or bfloat16 would part the two before the first step: in
    float32 weights under autocast where the policy keeps such.
    """
    match recipe.history:
        case PastCheckpoint():
            return FrozenHistory(_copy(recipe, policy))
        case MovingAverage(decay=decay):
            return MovingAverageHistory(_wide(recipe, policy), decay)
        case _ if recipe.model.lora is not None:
            return AdaptersOffHistory(policy.model)
        case _:
            return FrozenHistory(_copy(recipe, policy))


def _copy(recipe: Recipe, policy: Policy) -> FrozenModel:
    """The history model, frozen; ZeRO keeps bfloat16 weights from stage 1 on, and may divide those
    that are frozen.
    """
    zero = recipe.learn.zero
    if zero is not None and (zero.stage > 0 or zero.frozen == "sharded"):
        return frozen(recipe, recipe.earlier, policy)
    return UnshardedModel(_wide(recipe, policy))


def _wide(recipe: Recipe, policy: Policy) -> Policy:
    """The history model with float32 weights, computing in the dtype of the policy."""
    device: Literal["cuda", "cpu"] = "cuda" if policy.device.type == "cuda" else "cpu"
    loaded = models.load(
        replace(
            recipe.earlier, export=None, lora=None, gradient_checkpointing=False, device=device
        ),
        trainable=True,
    )
    loaded.model.requires_grad_(False).eval()
    return loaded
