"""Demonstrations as the unconditional reference sees them, and their log-probs under it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from reasontrain.data import stored_evidence
from reasontrain.data.prompts import Encoder, without_image
from reasontrain.recipe import Unconditional
from reasontrain.types import Rollout, UserError

COLUMN = "uncond_logp"


def without_condition(
    settings: Unconditional, encoder: Encoder, demonstrations: Sequence[Rollout]
) -> list[Rollout]:
    """The same responses after a header alone, or after their prompts without the image.

    Raises UserError where the condition is the image and a problem has none.
    """
    all_have_images = all(r.problem.image is not None for r in demonstrations)
    if settings.condition == "image" and not all_have_images:
        raise UserError(
            "unconditional.condition is `image`, and there are problems without one; use `prompt`"
        )
    blind = [
        replace(r, problem=without_image(r.problem), id=i, group=i)
        for i, r in enumerate(demonstrations)
    ]
    if settings.condition == "prompt" or not all_have_images:
        header = encoder.header_ids(settings.header)
        return [replace(r, prompt_ids=header) for r in blind]
    return [replace(r, prompt_ids=encoder.text_ids(r.problem)) for r in blind]


def with_uncond_logp(
    settings: Unconditional, encoder: Encoder, demonstrations: Sequence[Rollout], store: Path
) -> list[Rollout]:
    """The demonstrations with their log-probs from `store`.

    A log-prob is found by the ids that the reference was fed, so another prompt changes nothing.

    Args:
        settings: How the reference was made; decides what it did not see.
        encoder: Encodes for the model that is trained, whose ids the reference shares.
        demonstrations: Responses with the prompts that they are trained after.
        store: The directory that the stage `uncond_logp` filled.

    Raises:
        UserError: A response has no numbers, or wrong ones.
    """
    column = stored_evidence.read(store, COLUMN)
    blind = without_condition(settings, encoder, demonstrations)
    return [
        replace(r, evidence={**r.evidence, COLUMN: column.of(unseen)})
        for r, unseen in zip(demonstrations, blind, strict=True)
    ]
