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
from reasontrain.run.teacher_inputs import TeacherInputs
from reasontrain.run.teacher_prompts import TeacherPrompts
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


def responses_of(offline: OfflineSampler, prompts: TeacherPrompts | None = None) -> list[Rollout]:
    """All written responses, behind the teacher's prompts if they have others."""
    rollouts = [rollout for rollouts in offline.written.values() for rollout in rollouts]
    return rollouts if prompts is None else prompts.seen(rollouts)


def check_teacher(
    recipe: Recipe,
    order: Order,
    offline: OfflineSampler | None,
    for_teacher: TeacherInputs | None,
) -> None:
    """Check that the recipe's teacher can score what it is trained on.

    Args:
        recipe: the recipe.
        order: the prompts; a served teacher scores the first.
        offline: the written responses, if there are any.
        for_teacher: what teachers read of the problems beside what the student reads.

    Raises:
        UserError: the store lacks a response or is of another teacher; the server refuses; a prompt
            of the teacher cannot be made or does not fit; or a problem has no teacher.
        RunError: the server does not answer.
    """
    prompts = None
    if for_teacher is not None:
        prompts = for_teacher.prompts
        for_teacher.check(order.prompts, None if offline is None else responses_of(offline))
    if isinstance(recipe.teacher, StoredTeacher):
        assert offline is not None, "the recipe refuses a stored teacher beside sampling"
        store = TopKStore.read(Path(recipe.teacher.store), made_by(recipe.teacher))
        store.check(responses_of(offline, prompts))
    elif isinstance(recipe.teacher, ServedTeacher):
        first = order.prompts[0]
        ids = first.ids if prompts is None else prompts.ids([first.problem])[0]
        ServedTopK(recipe.teacher).check(ids, [order.tokenizer.decode([token]) for token in ids])


def stored_files(recipe: Recipe) -> Sequence[Path]:
    """The files or directories of a teacher that the run reads."""
    return [Path(recipe.teacher.store)] if isinstance(recipe.teacher, StoredTeacher) else []
