"""Learners built from recipes or from parts: models loaded, adapted and compared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch

from reasontrain import models
from reasontrain.algo.custom_evidence import declare_custom
from reasontrain.algo.evidence import forward_passes
from reasontrain.data.stored_top_k import TopKStore
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
from reasontrain.learner.teacher_states import SeveralTeachers
from reasontrain.learner.top_k_teacher import StoredTopK, TopKSource
from reasontrain.models import DType, Importance, ModelSettings, Placement, Policy
from reasontrain.models.attention import check
from reasontrain.recipe import (
    LearnSettings,
    MovingAverage,
    PastCheckpoint,
    Recipe,
    ServedTeacher,
    StoredTeacher,
    TeacherMixture,
    WeightsTeacher,
    Zero,
)


def make_learner(recipe: Recipe, teacher: FrozenModel | None = None) -> PolicyLearner:
    """The learner of a recipe in this process.

    `teacher` replaces the recipe's, if it runs in another process.
    Ranks join their process group before (see `distributed`).
    """
    declare_custom(recipe.custom_evidence)  # this process may not have read the recipe
    # Frozen models come first: divided among ranks they leave room for the policy, whose own files
    # are then read.
    loaded = teacher or loaded_teacher(recipe)
    reference = None
    measured = forward_passes(recipe.measured_evidence)
    if "reference" in measured and (recipe.reference or not recipe.model.lora):
        # Otherwise the reference is the policy with its adapters switched off.
        reference = frozen(recipe, recipe.reference or recipe.model)
    copied = frozen_history(recipe) if "history" in measured else None
    placement = placement_of(recipe)
    policy = models.load(
        recipe.model,
        trainable=True,
        layout=recipe.learn.layout,
        placement=placement,
        sequence_parallel=recipe.learn.sequence_parallel,
    )
    with placement.whole_in_forward(policy.model):
        if recipe.sample is not None and recipe.sample.thought is not None:
            policy.measure_ids_in_use(recipe.task.problems())
        if "attention" in recipe.required_evidence:
            check(policy, recipe.importance)
    if recipe.model.lora is not None:
        adapt(policy, recipe.model.lora)
    history = copied or (AdaptersOffHistory(policy.model) if "history" in measured else History())
    return compose_learner(
        policy,
        recipe.learn,
        steps=recipe.schedule_steps,
        temperature=recipe.temperature,
        teacher=loaded or top_k_source(recipe),
        compared=recipe.teacher_model,
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
    teacher: FrozenModel | SeveralTeachers | TopKSource | None = None,
    compared: WeightsTeacher | None = None,
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
        compared: how many ids of a single teacher with weights are compared; None: all.
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
        others = [one.policy for one in (teacher, reference) if isinstance(one, LocalModel)]
        for one in (policy, *others, *(history.policies if history is not None else ())):
            one.sequence_group = group
    observer = Observer(
        engine,
        temperature=temperature,
        teacher=teacher,
        compared=compared,
        reference=reference,
        history=history,
        importance=importance,
    )
    return PolicyLearner(engine, observer, settings, steps=steps, export_dtype=export_dtype)


def top_k_source(recipe: Recipe) -> TopKSource | None:
    """The recipe's teacher without weights; `run.build` has checked that it fits the data."""
    teacher = recipe.teacher
    if isinstance(teacher, StoredTeacher):
        return StoredTopK(TopKStore.read(Path(teacher.store)), teacher.tail)
    if isinstance(teacher, ServedTeacher):
        # Imported here: few runs talk to a server.
        from reasontrain.learner.served_teacher import ServedTopK

        return ServedTopK(teacher)
    return None


def loaded_teacher(recipe: Recipe) -> FrozenModel | SeveralTeachers | None:
    """The recipe's teacher with weights, or several of them."""
    models = tuple(frozen(recipe, settings) for settings in recipe.teacher_models.values())
    if not models or recipe.teacher_model is not None:
        return models[0] if models else None
    weights = recipe.teacher.weights if isinstance(recipe.teacher, TeacherMixture) else None
    return SeveralTeachers(models, weights)


def placement_of(recipe: Recipe) -> Placement:
    """The place of the policy's weights while they are read.

    The weights that an optimiser moves are float32: these, or copies that DeepSpeed makes of its
    part from stage 1 on.
    """
    device = models.device_of(recipe.model.device)
    zero = recipe.learn.zero
    copies = zero is not None and zero.stage > 0
    dtype = getattr(torch, recipe.model.dtype)
    if zero is not None and zero.stage == 3:
        return _partition(recipe, zero, device, dtype)
    if not copies:
        dtype = models.dtype_of_weights(recipe.model, trainable=True)
    return Placement(device, dtype)


def frozen(recipe: Recipe, settings: ModelSettings) -> FrozenModel:
    """A model that is only compared with; `run.build` has checked that token ids agree."""
    zero = recipe.learn.zero
    device = models.device_of(recipe.model.device)
    settings = _frozen_settings(settings, device)
    if zero is None or zero.frozen != "sharded":
        return UnshardedModel(
            models.load(
                settings,
                layout=recipe.learn.layout,
                sequence_parallel=recipe.learn.sequence_parallel,
            )
        )
    from reasontrain.learner.zero import ShardedModel, sharded_settings

    zero = sharded_settings(zero)
    dtype = getattr(torch, settings.dtype)
    loaded = models.load(
        settings,
        layout=recipe.learn.layout,
        placement=_partition(recipe, zero, device, dtype),
        sequence_parallel=recipe.learn.sequence_parallel,
    )
    return ShardedModel(loaded, zero, recipe.learn)


def frozen_history(recipe: Recipe) -> History | None:
    """The history model that the recipe asks for; None for the policy with its adapters off.

    A copy computes as the policy does (float32 weights under autocast, if the policy has those);
    otherwise rounding to bfloat16 would separate the two before the first step.
    """
    match recipe.history:
        case PastCheckpoint():
            return FrozenHistory(_copy(recipe))
        case MovingAverage(decay=decay):
            return MovingAverageHistory(_averaged(recipe), decay)
        case _ if recipe.model.lora is not None:
            return None
        case _:
            return FrozenHistory(_copy(recipe))


def _copy(recipe: Recipe) -> FrozenModel:
    """The history model, frozen.

    ZeRO keeps bfloat16 weights from stage 1 on, and may shard frozen ones; adapters have a base of
    bfloat16 weights.
    """
    zero = recipe.learn.zero
    is_sharded = zero is not None and zero.frozen == "sharded"
    if is_sharded or not _computes_wide(recipe):
        return frozen(recipe, recipe.earlier)
    return UnshardedModel(_averaged(recipe))


def _computes_wide(recipe: Recipe) -> bool:
    """True if the policy's forward reads float32 weights, rounded under autocast."""
    zero = recipe.learn.zero
    return recipe.model.lora is None and (zero is None or zero.stage == 0)


def _averaged(recipe: Recipe) -> Policy:
    """The history model, whole on this rank, with weights as the policy's forward reads them."""
    device = models.device_of(recipe.model.device)
    loaded = models.load(
        replace(_frozen_settings(recipe.earlier, device), gradient_checkpointing=False),
        trainable=_computes_wide(recipe),
        layout=recipe.learn.layout,
        sequence_parallel=recipe.learn.sequence_parallel,
    )
    loaded.model.requires_grad_(False).eval()
    return loaded


def _frozen_settings(settings: ModelSettings, device: torch.device) -> ModelSettings:
    """The settings of a model that is not trained, on the device of the policy."""
    name: Literal["cuda", "cpu"] = "cuda" if device.type == "cuda" else "cpu"
    return replace(settings, export=None, lora=None, device=name)


def _partition(recipe: Recipe, zero: Zero, device: torch.device, dtype: torch.dtype) -> Placement:
    """A place that ranks divide among them."""
    # Imported here because DeepSpeed takes seconds, and most runs do without it.
    from reasontrain.learner.partition import Partition

    return Partition(device, dtype, zero, recipe.learn)
