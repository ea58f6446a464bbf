"""Log-probs of demonstrations under a frozen reference that does not see their condition.

The reference is fed the response after a header that is the same for all samples, or after the
prompt without its image; prompt and header tokens are not scored. The store holds log P, which is
accurate near P = 1, and a rule's exponent can change without scoring again. A reference of kind
`uncond_tuned` is trained in a separate run, like the models of stages of kind `tune`.
"""

from __future__ import annotations

import gc
import logging
import math
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float64
from torch import Tensor

from reasontrain import models
from reasontrain.algo.evidence import from_sources
from reasontrain.algo.objectives import Nll
from reasontrain.data.offline import fingerprint
from reasontrain.data.prompts import Encoder, PromptSettings
from reasontrain.data.replies import trained_weights
from reasontrain.data.stored_evidence import (
    MadeBy,
    digest,
    directory_of,
    hash_of,
    part_of,
    read,
    write,
)
from reasontrain.learner.scoring import logp
from reasontrain.models import Description, ModelSettings
from reasontrain.recipe import LearnSettings, Recipe, TrackSettings, UncondTuned
from reasontrain.run.build import check_directory
from reasontrain.run.datasets import encoder_of, training_data
from reasontrain.run.directory import RunDirectory
from reasontrain.run.owner import owned
from reasontrain.run.unconditional import COLUMN, without_condition
from reasontrain.stages.solutions import write_lines
from reasontrain.stages.tune import train
from reasontrain.tasks import RolloutTask
from reasontrain.tasks.grading import Grader
from reasontrain.types import Rollout, UserError

logger = logging.getLogger(__name__)

PART_TOKENS = 1 << 20
"""Response tokens per part of the store; at most one part is lost when scoring is interrupted."""


@dataclass(frozen=True)
class FoldPart:
    """Responses of similar length that are scored and written together, by one reference."""

    number: int
    fold: int
    rollouts: Sequence[Rollout]


def is_needed(recipe: Recipe) -> bool:
    """True if the recipe's rule or objective reads `uncond_logp`."""
    return bool(from_sources(recipe.required_evidence, "unconditional"))


def score_demonstrations(recipe: Recipe) -> Path:
    """Score the recipe's demonstrations and return the store; see `fill_store`."""
    described = models.describe(recipe.model)
    with Grader() as grader:
        written, _ = training_data(recipe, described, grader)
    assert written is not None, "the recipe refuses this evidence beside sampling"
    encoder = encoder_of(described, recipe.prompt)
    return fill_store(
        recipe, encoder, [r for rollouts in written.written.values() for r in rollouts]
    )


def fill_store(recipe: Recipe, encoder: Encoder, demonstrations: Sequence[Rollout]) -> Path:
    """Tune the reference and score the demonstrations, skipping what exists already.

    Args:
        recipe: Its `unconditional` has the settings of the reference. Scoring takes place in this
            process, tuning in the processes of the recipe's cluster.
        encoder: The encoder of the recipe's model.
        demonstrations: Responses with their training prompts.

    Returns:
        The store, `<out>/stages/uncond_logp-<hash>`: the hash covers the reference's weights, its
        settings and its input, so that recipes that agree in these share a store.

    Raises:
        UserError: The reference has other token ids, or no room for a response.
    """
    settings = recipe.unconditional or UncondTuned()
    model = replace(settings.model or recipe.model, export=None, lora=None, shape=None)
    described = models.describe(model)
    if settings.model is not None:
        models.check_same_ids(models.describe(recipe.model), described, "unconditional reference")
    blind = without_condition(settings, encoder, demonstrations)
    _check_lengths(blind, described)
    made_by = {
        "reference": {key: value for key, value in asdict(settings).items() if key != "model"},
        "model": models.fingerprint(model),
        "samples": digest(blind),
    }
    store = directory_of(RunDirectory(Path(recipe.out)).stages, COLUMN, made_by)
    folds = settings.folds if isinstance(settings, UncondTuned) else 1
    with owned(store, wait=True):
        missing = [
            part for part in cut_parts(blind, folds) if not part_of(store, part.number).exists()
        ]
        for fold in range(folds):
            parts = [part for part in missing if part.fold == fold]
            if parts:
                num_responses = sum(len(part.rollouts) for part in parts)
                logger.info(
                    f"{COLUMN}: {settings.kind} scores {num_responses:,} responses for {store}"
                )
                reference = model
                if isinstance(settings, UncondTuned):
                    tuning_set = _tuning_set(blind, fold, folds)
                    final = tune_reference(recipe, settings, model, tuning_set, store, fold)
                    reference = replace(model, path=str(final), revision=None)
                _score_parts(store, made_by, parts, reference, recipe)
    _report(store, made_by, blind)
    return store


def fold_of(rollout: Rollout, folds: int) -> int:
    """The fold of a response, by a hash of its token ids: equal responses share a fold."""
    return int(hash_of(rollout.response_ids)[:15], 16) % folds


def cut_parts(
    rollouts: Sequence[Rollout], folds: int, part_tokens: int = PART_TOKENS
) -> list[FoldPart]:
    """The responses of each fold, sorted by length and cut after `part_tokens` tokens.

    The parts depend only on the data, so that an interrupted stage finds the same parts again.
    """
    parts: list[tuple[int, list[Rollout]]] = []
    for fold in range(folds):
        by_length = sorted(
            (r for r in rollouts if fold_of(r, folds) == fold),
            key=lambda r: (len(r.response_ids), r.id),
        )
        room = 0
        first = len(parts)
        for rollout in by_length:
            if room < len(rollout.response_ids) or len(parts) == first:
                parts.append((fold, []))
                room = part_tokens
            parts[-1][1].append(rollout)
            room -= len(rollout.response_ids)
    return [
        FoldPart(number, fold, unit_rollouts) for number, (fold, unit_rollouts) in enumerate(parts)
    ]


def tune_reference(
    recipe: Recipe,
    settings: UncondTuned,
    model: ModelSettings,
    tuning_set: Sequence[Rollout],
    store: Path,
    fold: int,
) -> Path:
    """Tune a reference for one epoch with the training loop, in `<store>/reference-<fold>`.

    Args:
        recipe: Its micro-batches, ZeRO settings and cluster are used for tuning.
        settings: Learning rate, batch size, adapters, and the seed of the epoch's order. If the
            responses do not divide into steps, the last step is completed with responses of the
            next epoch's order.
        model: The model to tune.
        tuning_set: Responses, with the reference's input before them as prompts.
        store: The parent of the run directory.
        fold: The fold that the reference will score.

    Returns:
        The directory of the tuned model. An existing model is not tuned again, and an interrupted
        tuning resumes from its last checkpoint.
    """
    run = RunDirectory(store / f"reference-{fold}")
    if run.final.is_dir():
        return run.final
    demonstrations = store / f"demonstrations-{fold}.jsonl"
    write_lines(demonstrations, _lines(tuning_set, model))
    rollouts_per_step = min(settings.rollouts_per_step, len(tuning_set))
    tuning = Recipe(
        name=run.path.name,
        out=str(store),
        steps=math.ceil(len(tuning_set) / rollouts_per_step),
        model=replace(model, lora=settings.lora),
        task=RolloutTask(path=str(demonstrations)),
        objective=Nll(),
        loss_aggregation="response_token_mean",
        learn=LearnSettings(
            lr=settings.lr,
            rollouts_per_step=rollouts_per_step,
            schedule="linear",
            micro_batch_tokens=recipe.learn.micro_batch_tokens,
            zero=recipe.learn.zero,
            sequence_parallel=recipe.learn.sequence_parallel,
        ),
        seed=settings.seed,
        prompt=PromptSettings(),
        track=TrackSettings(tokens_every=0),
        # neither a teacher nor samplers have work while the reference is tuned
        cluster=recipe.cluster and replace(recipe.cluster, teachers=0, samplers=0, overlap=0),
    )
    try:
        check_directory(run, tuning)
    except UserError:  # settings that do not enter the store's name, such as the micro-batch size
        logger.info(f"{COLUMN}: {run.path} was started with other settings; tuning starts again")
        shutil.rmtree(run.path)
    train(f"{COLUMN} reference", tuning)
    return run.final


def _lines(tuning_set: Sequence[Rollout], model: ModelSettings) -> Iterator[dict[str, object]]:
    """Demonstrations as token ids, with texts for human readers."""
    tokenizer = models.describe(model).tokenizer
    ids_of = fingerprint(tokenizer)
    for rollout in tuning_set:
        row: dict[str, object] = {
            "id": rollout.problem.id,
            "prompt": tokenizer.decode(list(rollout.prompt_ids)),
            "response": tokenizer.decode(list(rollout.response_ids)),
            "prompt_ids": rollout.prompt_ids,
            "response_ids": rollout.response_ids,
            "tokenizer": ids_of,
        }
        weights = trained_weights(rollout)
        yield row if set(weights) == {1.0} else {**row, "loss_weight": weights}


def _tuning_set(rollouts: Sequence[Rollout], fold: int, folds: int) -> list[Rollout]:
    """The responses of all other folds; all responses if there is only one fold."""
    others = [r for r in rollouts if folds == 1 or fold_of(r, folds) != fold]
    if not others:
        raise UserError(
            f"unconditional.folds: {folds} folds of {len(rollouts)} responses leave none to tune "
            f"on; use 1"
        )
    return others


def _report(store: Path, made_by: MadeBy, blind: Sequence[Rollout]) -> None:
    """Log figures about the column; see `describe_column`."""
    column = read(store, COLUMN, made_by)
    values_N = torch.tensor([value for r in blind for value in column.of(r)], dtype=torch.float64)
    describe_column(values_N.exp(), store)


def describe_column(p_N: Float64[Tensor, " N"], store: Path) -> None:
    """Log the mean of P over N tokens, and the share of tokens with P above 0.99.

    Warn if the mean weight 1 - P is below 0.05: the reference has memorised the responses, and the
    weights mean little.
    """
    mean = float(p_N.mean())
    sure = float((p_N > 0.99).double().mean())
    logger.info(
        f"{COLUMN}: mean P {mean:.3f}, {sure:.1%} of {len(p_N):,} tokens above 0.99, in {store}"
    )
    if 1 - mean < 0.05:
        logger.warning(
            f"the mean weight 1 - P is {1 - mean:.3f}, below 0.05: the reference knows the "
            f"responses by heart and its weights mean little; look for duplicates, or set "
            f"`unconditional.folds: 2`"
        )


def _score_parts(
    store: Path,
    made_by: MadeBy,
    parts: Sequence[FoldPart],
    reference: ModelSettings,
    recipe: Recipe,
) -> None:
    """Score and write these parts, and free the reference's memory."""
    policy = models.load(reference, layout="padded")
    policy.model.eval()
    for part in parts:
        values = logp(policy, part.rollouts, recipe.learn.micro_batch_tokens)
        write(part_of(store, part.number), COLUMN, part.rollouts, values, made_by)
    del policy
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _check_lengths(rollouts: Sequence[Rollout], described: Description) -> None:
    """Raise UserError for responses that exceed the reference's context."""
    longest = max(rollouts, key=lambda r: len(r.prompt_ids) + len(r.response_ids))
    needed = len(longest.prompt_ids) + len(longest.response_ids)
    if needed > described.context:
        raise UserError(
            f"the unconditional reference takes {described.context} tokens, and the "
            f"response of {longest.problem.label} with its "
            f"header has {needed}; choose another reference"
        )
