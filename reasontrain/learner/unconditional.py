"""Log-probs of responses under a frozen reference that does not see their condition: made once,
stored, joined by sample.

The reference is fed a header that is the same for all samples, and the response; positions begin at
0, header tokens are not scored. What is stored is log P, which keeps its digits near P = 1, so that
a rule's exponent can change without scoring again.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from reasontrain import models, rng
from reasontrain.algo.advantages import NoAdvantage
from reasontrain.algo.loss_aggregation import response_token_mean
from reasontrain.algo.objectives import Nll
from reasontrain.data import storage
from reasontrain.data.collate import collate
from reasontrain.data.prompts import Encoder, without_image
from reasontrain.data.stored_evidence import (
    MadeBy,
    digest,
    directory_of,
    hash_of,
    part_of,
    read,
    write,
)
from reasontrain.learner import weight_export
from reasontrain.learner.factory import compose_learner
from reasontrain.learner.lora import adapt, load_adapter
from reasontrain.learner.scoring import logp
from reasontrain.models import Description, ModelSettings, Policy
from reasontrain.recipe import LearnSettings, Recipe, Unconditional, UncondTuned
from reasontrain.rng import Stream
from reasontrain.types import Rollout, UserError

logger = logging.getLogger(__name__)

COLUMN = "uncond_logp"
PART_TOKENS = 1 << 20
"""Response tokens of one part of the store: what is lost when scoring is interrupted."""


@dataclass(frozen=True)
class FoldPart:
    """Responses of similar length that are scored and written together, by one reference."""

    number: int
    fold: int
    rollouts: Sequence[Rollout]


def with_uncond_logp(recipe: Recipe, encoder: Encoder, written: Sequence[Rollout]) -> list[Rollout]:
    """The demonstrations with their stored log-probs; computed and stored first where they are not,
    or not all.

    All in this process, whatever processes the recipe trains in. The store lies in `<out>/columns`,
    named by a hash of the reference's weights, its settings, its prompts and the data.
    """
    settings = recipe.unconditional or UncondTuned()
    model = replace(settings.model or recipe.model, export=None, lora=None, shape=None)
    described = models.describe(model)
    if settings.model is not None:
        models.check_same_ids(models.describe(recipe.model), described, "unconditional reference")
    unconditional = without_condition(settings, encoder, written)
    _check_lengths(unconditional, described)
    made_by = {
        "reference": {key: value for key, value in asdict(settings).items() if key != "model"},
        "model": models.fingerprint(model),
        "samples": digest(unconditional),
    }
    store = directory_of(Path(recipe.out) / "columns", COLUMN, made_by)
    folds = settings.folds if isinstance(settings, UncondTuned) else 1
    with storage.alone(store):
        missing = [
            part
            for part in cut_parts(unconditional, folds)
            if not part_of(store, part.number).exists()
        ]
        for fold in range(folds):
            parts = [part for part in missing if part.fold == fold]
            if parts:
                logger.info(
                    f"{COLUMN}: {settings.kind} scores "
                    f"{sum(len(p.rollouts) for p in parts):,} responses for {store}"
                )
                _score_parts(
                    store,
                    made_by,
                    parts,
                    reference(recipe, model, unconditional, fold, store),
                    recipe,
                )
    column = read(store, COLUMN, made_by)
    found = [column.of(r) for r in unconditional]
    logger.info(summary([value for values in found for value in values], store))
    return [
        replace(r, evidence={**r.evidence, COLUMN: values})
        for r, values in zip(written, found, strict=True)
    ]


def without_condition(
    settings: Unconditional, encoder: Encoder, written: Sequence[Rollout]
) -> list[Rollout]:
    """The same responses after a header alone, or after their prompts without the image and its
    placeholders.
    """
    all_have_images = all(r.problem.image is not None for r in written)
    if settings.condition == "image" and not all_have_images:
        raise UserError(
            "unconditional.condition is `image`, and there are problems without one; use `prompt`"
        )
    blind = [
        replace(r, problem=without_image(r.problem), id=i, group=i) for i, r in enumerate(written)
    ]
    if settings.condition == "prompt" or not all_have_images:
        header = encoder.header_ids(settings.header)
        return [replace(r, prompt_ids=header) for r in blind]
    return [replace(r, prompt_ids=encoder.text_ids(r.problem)) for r in blind]


def fold_of(rollout: Rollout, folds: int) -> int:
    """By the response's own hash: equal responses lie in one fold, whatever their ids and order."""
    return int(hash_of(rollout.response_ids)[:15], 16) % folds


def cut_parts(
    rollouts: Sequence[Rollout], folds: int, part_tokens: int = PART_TOKENS
) -> list[FoldPart]:
    """The responses of each fold, sorted by length and cut after so many tokens: a function of the
    data alone.
    """
    found: list[tuple[int, list[Rollout]]] = []
    for fold in range(folds):
        mine = sorted(
            (r for r in rollouts if fold_of(r, folds) == fold),
            key=lambda r: (len(r.response_ids), r.id),
        )
        room, first = 0, len(found)
        for rollout in mine:
            if room < len(rollout.response_ids) or len(found) == first:
                found.append((fold, []))
                room = part_tokens
            found[-1][1].append(rollout)
            room -= len(rollout.response_ids)
    return [
        FoldPart(number, fold, unit_rollouts) for number, (fold, unit_rollouts) in enumerate(found)
    ]


def reference(
    recipe: Recipe,
    model: ModelSettings,
    rollouts: Sequence[Rollout],
    fold: int,
    kept: Path,
) -> Policy:
    """The frozen model that scores this fold."""
    settings = recipe.unconditional or UncondTuned()
    if not isinstance(settings, UncondTuned):
        return models.load(model)
    others = [r for r in rollouts if settings.folds == 1 or fold_of(r, settings.folds) != fold]
    if not others:
        raise UserError(
            f"unconditional.folds: {settings.folds} folds of {len(rollouts)} responses "
            f"leave none to tune on; use 1"
        )
    return tuned(
        settings, model, others, kept / f"reference-{fold}", recipe.learn.micro_batch_tokens
    )


def tuned(
    settings: UncondTuned,
    model: ModelSettings,
    rollouts: Sequence[Rollout],
    kept: Path,
    micro_batch_tokens: int,
) -> Policy:
    """A reference after one epoch on these responses, each once; what was tuned is kept, and found
    again.
    """
    if kept.exists() and settings.lora is None:
        return models.load(replace(model, path=str(kept), revision=None))
    policy = models.load(model, trainable=True)
    if settings.lora is not None:
        adapt(policy, settings.lora)
    if kept.exists():
        load_adapter(policy.model, kept)
        return policy
    steps = -(-len(rollouts) // settings.rollouts_per_step)
    learn = LearnSettings(
        lr=settings.lr,
        rollouts_per_step=settings.rollouts_per_step,
        schedule="linear",
        micro_batch_tokens=micro_batch_tokens,
    )
    learner = compose_learner(policy, learn, steps=steps)
    order = torch.argsort(
        rng.uniform(settings.seed, Stream.UNCONDITIONAL_ORDER, torch.arange(len(rollouts))), stable=True
    ).tolist()
    losses = []
    for first in range(0, len(rollouts), settings.rollouts_per_step):
        taken = [rollouts[place] for place in order[first : first + settings.rollouts_per_step]]
        batch = collate(taken, advantage=NoAdvantage())
        losses.append(
            learner.step(batch, batch.is_response_BT.float(), Nll(), response_token_mean)["loss"]
        )
    logger.info(
        f"{COLUMN}: tuned {steps} steps on responses alone, loss {losses[0]:.3f} to "
        f"{losses[-1]:.3f}"
    )
    kept.parent.mkdir(parents=True, exist_ok=True)
    partial = kept.with_name(f".partial-{kept.name}")
    with storage.whole(partial):
        weight_export.save_policy(policy, partial)
    partial.rename(kept)
    return policy


def summary(values: Sequence[float], directory: Path) -> str:
    """What a column holds, with an alarm where its reference knows the responses by heart."""
    p_N = torch.tensor(values, dtype=torch.float64).exp()
    mean, sure = float(p_N.mean()), float((p_N > 0.99).double().mean())
    line = (
        f"{COLUMN}: mean P {mean:.3f}, {sure:.1%} of {len(values):,} tokens above 0.99, in "
        f"{directory}"
    )
    if 1 - mean >= 0.05:
        return line
    return (
        f"{line}\nwarning: the mean weight 1 - P is {1 - mean:.3f}, below 0.05: the "
        f"reference knows the responses by heart and "
        "its weights mean little; look for duplicates, or set `unconditional.folds: 2`"
    )


def _score_parts(
    store: Path, made_by: MadeBy, parts: Sequence[FoldPart], policy: Policy, recipe: Recipe
) -> None:
    """Score and write these parts, and give the reference's memory back."""
    policy.model.eval()
    for part in parts:
        values = logp(policy, part.rollouts, recipe.learn.micro_batch_tokens)
        write(part_of(store, part.number), COLUMN, part.rollouts, values, made_by)
    del policy
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _check_lengths(rollouts: Sequence[Rollout], described: Description) -> None:
    """Refuse responses that the reference has no room for."""
    longest = max(rollouts, key=lambda r: len(r.prompt_ids) + len(r.response_ids))
    needed = len(longest.prompt_ids) + len(longest.response_ids)
    if needed > described.context:
        raise UserError(
            f"the unconditional reference takes {described.context} tokens, and the "
            f"response of {longest.problem.id} with its "
            f"header has {needed}; choose another reference"
        )
