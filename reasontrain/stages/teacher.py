"""Log-probabilities of the teacher's likeliest ids at written responses, stored before training."""

from __future__ import annotations

import logging
from pathlib import Path

from reasontrain import models
from reasontrain.data.stored_top_k import TopKStore, write
from reasontrain.learner.scoring import top_k
from reasontrain.recipe import Recipe, StoredTeacher
from reasontrain.run.build import describe_models
from reasontrain.run.datasets import training_data
from reasontrain.run.owner import owned
from reasontrain.run.teacher import made_by, model_of, responses_of
from reasontrain.run.teacher_prompts import teacher_prompts_of
from reasontrain.tasks.grading import Grader

logger = logging.getLogger(__name__)

PART_NUMBERS = 1 << 25
"""Ids per part of a store, about 250 MB; at most one part is lost when scoring is interrupted."""


def score_teacher(recipe: Recipe, teacher: StoredTeacher) -> Path:
    """Score the recipe's written responses with the teacher, those that its store does not hold.

    Returns:
        The store.

    Raises:
        UserError: the store is of another teacher, tokenizer or `top_k`; or the teacher and the
            model have other ids.
    """
    described = describe_models(recipe)
    with Grader() as grader:
        offline, _ = training_data(recipe, described, grader)
    assert offline is not None, "the recipe refuses a stored teacher beside sampling"
    prompts = teacher_prompts_of(recipe, described)
    if prompts is not None:
        prompts.check_responses(responses_of(offline))
    store = Path(teacher.store)
    maker = made_by(teacher)
    with owned(store, wait=True):
        responses = responses_of(offline, prompts)
        missing = TopKStore.read(store, maker).missing(responses)
        num_tokens = sum(len(rollout.response_ids) for rollout in missing)
        logger.info(
            f"{teacher.model.path} scores {len(missing):,} of {len(responses):,} responses "
            f"({num_tokens:,} tokens) for {store}"
        )
        if missing:
            policy = models.load(model_of(teacher), layout="padded")
            policy.model.eval()
            num_ids = min(teacher.top_k or policy.head.width, policy.head.width)
            # Of similar length together, so that little is padded.
            missing.sort(key=lambda rollout: len(rollout.response_ids))
            while missing:
                part = [missing.pop()]
                room = PART_NUMBERS // num_ids - len(part[0].response_ids)
                while missing and len(missing[-1].response_ids) <= room:
                    part.append(missing.pop())
                    room -= len(part[-1].response_ids)
                scored = top_k(policy, part, teacher.top_k, recipe.learn.micro_batch_tokens)
                write(store, part, scored, maker)
    return store
