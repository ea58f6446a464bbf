"""Fine-tuning of the run's initial model on a stage's demonstrations, as a separate run."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from pathlib import Path

from reasontrain.algo.objectives import Nll
from reasontrain.recipe import (
    SCHEME,
    PairsStage,
    Recipe,
    RecipeError,
    SampleStage,
    TrackSettings,
    TuneStage,
    split,
)
from reasontrain.recipe.validation import validation_errors
from reasontrain.run.build import run_context
from reasontrain.tasks import RolloutTask
from reasontrain.types import Stats

logger = logging.getLogger(__name__)

LINES = 5
"""Progress lines per stage."""


def tune(stage: TuneStage, recipe: Recipe, directory: Path) -> None:
    """Fine-tune with the settings of the stage, and write `final` into `directory`.

    An interrupted stage resumes from its last checkpoint.
    """
    train(stage.name, tuning(stage, recipe, directory))


def train(name: str, recipe: Recipe) -> None:
    """Run a stage's recipe to its end, with a few lines of progress.

    Raises RecipeError if settings of the stage and of the recipe contradict each other.
    """
    if faults := validation_errors(recipe):
        raise RecipeError(
            "\n".join([f"stage {name} cannot be run:", *(f"  {fault}" for fault in faults)])
        )

    def report(done: int, stats: Stats) -> None:
        if done % max(1, recipe.steps // LINES) == 0 or done == recipe.steps:
            logger.info(f"{name}: step {done} of {recipe.steps}, loss {stats['loss']:.4g}")

    with run_context(recipe) as context:
        context.run(report)


def check_warmup(recipe: Recipe) -> None:
    """Raise RecipeError for a stage that must be shorter than its warm-up.

    How many demonstrations a stage will have is known when the stages before it are done, which may
    take days; the most that it can have is known before.
    """
    most: dict[str, int | None] = {}
    errors = []
    for number, stage in enumerate(recipe.stages):
        match stage:
            case SampleStage():
                problems = len(stage.task.problems()) if _has_warmup(recipe) else None
                most[stage.name] = problems and problems * stage.sample.group_size
            case PairsStage():
                most[stage.name] = most.get(split(stage.rollouts)[0])
            case TuneStage() if stage.demonstrations.startswith(SCHEME):
                demonstrations = most.get(split(stage.demonstrations)[0])
                learn = stage.learn
                if demonstrations is None:
                    continue
                steps = math.ceil(stage.epochs * demonstrations / learn.rollouts_per_step)
                if learn.warmup_steps >= steps * learn.updates_per_batch:
                    errors.append(
                        f"  stages.{number}.learn.warmup_steps: {learn.warmup_steps} must be less "
                        f"than the steps of the stage, of which {demonstrations} demonstrations at "
                        f"most make {steps}"
                    )
    if errors:
        raise RecipeError("\n".join([f"the stages of {recipe.name} cannot be run:", *errors]))


def _has_warmup(recipe: Recipe) -> bool:
    """True if a stage warms up, for which problems are read and counted."""
    return any(isinstance(stage, TuneStage) and stage.learn.warmup_steps for stage in recipe.stages)


def tuning(stage: TuneStage, recipe: Recipe, directory: Path) -> Recipe:
    """Convert the stage to a recipe that maximises the likelihood of whole responses.

    Model, seed and cluster are those of the run's recipe.
    """
    task = RolloutTask(path=stage.demonstrations)
    size = stage.learn.sequence_parallel
    learn = replace(
        stage.learn,
        zero=stage.learn.zero or recipe.learn.zero,
        sequence_parallel=size if size > 1 else recipe.learn.sequence_parallel,
    )
    steps = math.ceil(stage.epochs * len(task.samples) / learn.rollouts_per_step)
    if learn.warmup_steps >= steps * learn.updates_per_batch:
        # `check_warmup` has refused what no number of demonstrations makes possible.
        shorter = steps * learn.updates_per_batch - 1
        logger.warning(
            f"{stage.name}: warm-up shortened from {learn.warmup_steps} to {shorter} steps, "
            f"because {len(task.samples)} demonstrations make {steps} steps"
        )
        learn = replace(learn, warmup_steps=shorter)
    return Recipe(
        name=directory.name,
        out=str(directory.parent),
        steps=steps,
        model=replace(recipe.model, lora=stage.lora),
        task=task,
        objective=Nll(),
        loss_aggregation="token_mean",
        learn=learn,
        seed=recipe.seed,
        prompt=recipe.prompt,
        checkpoint=stage.checkpoint,
        track=TrackSettings(tokens_every=0),
        # neither a teacher nor samplers have work while a model is tuned
        cluster=recipe.cluster and replace(recipe.cluster, teachers=0, samplers=0, overlap=0),
    )
