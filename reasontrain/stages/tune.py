"""Fine-tuning of the run's initial model on a stage's demonstrations, as a separate run."""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from pathlib import Path

from reasontrain.algo.objectives import Nll
from reasontrain.recipe import Recipe, RecipeError, TrackSettings, TuneStage
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

    def report(step: int, stats: Stats) -> None:
        if (step + 1) % max(1, recipe.steps // LINES) == 0 or step + 1 == recipe.steps:
            logger.info(f"{name}: step {step + 1} of {recipe.steps}, loss {stats['loss']:.4g}")

    with run_context(recipe) as context:
        context.run(report)


def tuning(stage: TuneStage, recipe: Recipe, directory: Path) -> Recipe:
    """Convert the stage to a recipe that maximises the likelihood of whole responses.

    Model, seed and cluster are those of the run's recipe.
    """
    task = RolloutTask(path=stage.demonstrations)
    learn = replace(stage.learn, zero=stage.learn.zero or recipe.learn.zero)
    steps = math.ceil(stage.epochs * len(task.samples) / learn.rollouts_per_step)
    # Known only after sampling, which is too dear to be lost to a warm-up that is too long.
    longest = steps * learn.updates_per_batch - 1
    if learn.warmup_steps > longest:
        logger.warning(
            f"{stage.name}: learn.warmup_steps {learn.warmup_steps} is lowered to {longest}, "
            f"because {len(task.samples)} demonstrations make {steps} steps only"
        )
        learn = replace(learn, warmup_steps=longest)
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
