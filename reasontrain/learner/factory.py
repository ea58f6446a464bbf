"""Learners built from recipes or from parts: models loaded, adapted and compared."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from reasontrain import models
from reasontrain.algo.evidence import forward_passes
from reasontrain.learner.engine import PlainEngine, TrainingEngine
from reasontrain.learner.history import (
    AdaptersOffHistory,
    FrozenHistory,
    History,
    MovingAverageHistory,
)
from reasontrain.learner.lora import adapt
from reasontrain.learner.observer import Observer
from reasontrain.learner.policy_learner import PolicyLearner
from reasontrain.learner.policy_module import FrozenModel, LocalModel, UnshardedModel
from reasontrain.models import DType, Importance, ModelSettings, Policy
from reasontrain.models.attention import check
from reasontrain.recipe import LearnSettings, MovingAverage, PastCheckpoint, Recipe


def make_learner(recipe: Recipe, teacher: FrozenModel | None = None) -> PolicyLearner:
    """The learner of a recipe in this process.

    `teacher` replaces the recipe's, if it runs in another process.
    Ranks join their process group before (see `distributed`).
    """
    policy = models.load(
        recipe.model,
        trainable=True,
        layout=recipe.learn.layout,
        sequence_parallel=recipe.learn.sequence_parallel,
    )
    if recipe.sample is not None and recipe.sample.thought is not None:
        policy.measure_ids_in_use(recipe.task.problems())
    if recipe.model.lora is not None:
        adapt(policy, recipe.model.lora)
    if teacher is None and recipe.teacher is not None:
        teacher = frozen(recipe, recipe.teacher, policy)
    reference = None
    measured = forward_passes(recipe.measured_evidence)
    if "reference" in measured and (recipe.reference or not recipe.model.lora):
        # Otherwise the reference is the policy with its adapters switched off.
        reference = frozen(recipe, recipe.reference or recipe.model, policy)
    if "attention" in recipe.required_evidence:
        check(policy, recipe.importance)
    history = earlier(recipe, policy) if "history" in measured else History()
    return compose_learner(
        policy,
        recipe.learn,
        steps=recipe.schedule_steps,
        temperature=recipe.temperature,
        teacher=teacher,
        reference=reference,
        history=history,
        importance=recipe.importance,
        export_dtype=recipe.model.export or recipe.model.dtype,
    )


def compose_learner(
    policy: Policy,
    settings: LearnSettings,
    *,
    steps: int,
    temperature: float = 1.0,
    teacher: FrozenModel | None = None,
    reference: FrozenModel | None = None,
    history: History | None = None,
    importance: Importance | None = None,
    export_dtype: DType = "float32",
) -> PolicyLearner:
    """A learner of this policy, with the engine that `settings.zero` asks for.

    Args:
        policy: the model to train.
        settings: how a batch is learned from.
        steps: the steps that the learning rate's schedule spans.
        temperature: divides the logits wherever a model is scored.
        teacher: the model that divergences are measured against.
        reference: the model of `ref_logp`; None for the policy without its adapters.
        history: the earlier version of the policy for `history_logp`.
        importance: which attention is looked at.
        export_dtype: the dtype of the final model.
    """
    engine: TrainingEngine
    if settings.zero is None:
        engine = PlainEngine(policy, settings)
    else:
        # Imported here because DeepSpeed takes seconds, and most runs do without it.
        from reasontrain.learner.zero import ZeroEngine

        engine = ZeroEngine(policy, settings)
    if settings.sequence_parallel > 1:
        from reasontrain.learner.sequence_parallel import UlyssesGroup

        group = UlyssesGroup.of_this_rank(settings.sequence_parallel)
        compared = [one.policy for one in (teacher, reference) if isinstance(one, LocalModel)]
        for one in (policy, *compared, *(history.policies if history is not None else ())):
            one.sequence_group = group
    observer = Observer(
        engine,
        temperature=temperature,
        teacher=teacher,
        reference=reference,
        history=history,
        importance=importance,
    )
    return PolicyLearner(engine, observer, settings, steps=steps, export_dtype=export_dtype)


def frozen(recipe: Recipe, settings: ModelSettings, policy: Policy) -> FrozenModel:
    """A model that is only compared with; `run.build` has checked that token ids agree."""
    device: Literal["cuda", "cpu"] = "cuda" if policy.device.type == "cuda" else "cpu"
    loaded = models.load(
        replace(settings, export=None, lora=None, device=device),
        layout=recipe.learn.layout,
        sequence_parallel=recipe.learn.sequence_parallel,
    )
    zero = recipe.learn.zero
    if zero is not None and zero.frozen == "sharded":
        from reasontrain.learner.zero import ShardedModel

        return ShardedModel(loaded, zero, recipe.learn)
    return UnshardedModel(loaded)


def earlier(recipe: Recipe, policy: Policy) -> History:
    """The history model that the recipe asks for.

    A copy computes exactly as the policy does (float32 weights under autocast, if the policy has
    those); otherwise rounding to bfloat16 would separate the two before the first step.
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
    """The history model, frozen.

    ZeRO keeps bfloat16 weights from stage 1 on, and may shard frozen ones.
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
        layout=recipe.learn.layout,
        sequence_parallel=recipe.learn.sequence_parallel,
    )
    loaded.model.requires_grad_(False).eval()
    return loaded
