"""The learner that a recipe asks for, in this process: its models loaded, adapted and compared."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from reasontrain import models
from reasontrain.learner.local import LocalLearner
from reasontrain.learner.lora import adapt
from reasontrain.learner.scorer import Frozen, WholeModel
from reasontrain.models import ModelSettings, Policy
from reasontrain.recipe import Recipe


def make_learner(recipe: Recipe, teacher: Frozen | None = None) -> LocalLearner:
    """The learner with all that it compares with; `teacher` is one that lies elsewhere. Ranks join before (see `ranks`)."""
    policy = models.load(recipe.model, trainable=True)
    if recipe.model.lora is not None:
        adapt(policy, recipe.model.lora)
    if teacher is None and recipe.teacher is not None:
        teacher = frozen(recipe, recipe.teacher, policy, "teacher")
    needs_reference = "ref_logp" in recipe.needs
    reference = frozen(recipe, recipe.reference or recipe.model, policy, "reference") if needs_reference else None
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
        export_dtype=recipe.model.export or recipe.model.dtype,
    )


def frozen(recipe: Recipe, settings: ModelSettings, policy: Policy, role: str) -> Frozen:
    """A model that is only compared with, speaking the same token ids."""
    device: Literal["cuda", "cpu"] = "cuda" if policy.device.type == "cuda" else "cpu"
    loaded = models.load(replace(settings, export=None, lora=None, device=device))
    models.check_same_ids(policy, loaded, role)
    zero = recipe.learn.zero
    if zero is not None and zero.frozen == "sharded":
        from reasontrain.learner.zero import ShardedModel

        return ShardedModel(loaded, zero, recipe.learn)
    return WholeModel(loaded)
