"""Checks of teachers that are not loaded, before a run starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from reasontrain import models
from reasontrain.data.offline import fingerprint
from reasontrain.data.order import Order
from reasontrain.data.stored_evidence import MadeBy
from reasontrain.data.stored_top_k import TopKStore
from reasontrain.learner.served_teacher import ServedTopK
from reasontrain.models import ModelSettings
from reasontrain.recipe import Recipe, ServedTeacher, StoredTeacher
from reasontrain.sampler.offline import OfflineSampler
from reasontrain.types import Rollout


def model_of(teacher: StoredTeacher) -> ModelSettings:
    """The model that scores, without settings that change nothing of it."""
    return replace(teacher.model, export=None, lora=None, shape=None, gradient_checkpointing=False)


def made_by(teacher: StoredTeacher) -> MadeBy:
    """Everything that stored log-probs depend on besides the token ids."""
    model = model_of(teacher)
    return {
        "model": models.fingerprint(model),
        "tokenizer": fingerprint(models.describe(model).tokenizer),
        "top_k": teacher.top_k,
    }


def responses_of(offline: OfflineSampler) -> list[Rollout]:
    """All written responses."""
    return [rollout for rollouts in offline.written.values() for rollout in rollouts]


def check_teacher(recipe: Recipe, order: Order, offline: OfflineSampler | None) -> None:
    """Check that the recipe's teacher can score what it is trained on.

    Args:
        recipe: the recipe.
        order: the prompts; a served teacher scores the first.
        offline: the written responses, if there are any.

    Raises:
        UserError: the store lacks a response or is of another teacher; or the server refuses.
        RunError: the server does not answer.
    """
    if isinstance(recipe.teacher, StoredTeacher):
        assert offline is not None, "the recipe refuses a stored teacher beside sampling"
        store = TopKStore.read(Path(recipe.teacher.store), made_by(recipe.teacher))
        store.check(responses_of(offline))
    elif isinstance(recipe.teacher, ServedTeacher):
        ids = order.prompts[0].ids
        ServedTopK(recipe.teacher).check(ids, [order.tokenizer.decode([token]) for token in ids])


def stored_files(recipe: Recipe) -> Sequence[Path]:
    """The files or directories of a teacher that the run reads."""
    return [Path(recipe.teacher.store)] if isinstance(recipe.teacher, StoredTeacher) else []
