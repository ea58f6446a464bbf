"""The model that the run starts from, fine-tuned on a stage's demonstrations: an ordinary run of
its own.
"""

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
"""Lines that a terminal gets of a stage's steps."""


def tune(stage: TuneStage, recipe: Recipe, directory: Path) -> None:
    """Train to the last step, going on from a checkpoint where there is one, and write `final`."""
    run_recipe = tuning(stage, recipe, directory)

    def report(step: int, stats: Stats) -> None:
        if (step + 1) % max(1, run_recipe.steps // LINES) == 0 or step + 1 == run_recipe.steps:
            logger.info(
                f"{stage.name}: step {step + 1} of {run_recipe.steps}, loss {stats['loss']:.4g}"
            )

    with run_context(run_recipe) as ready:
        ready.run(report)


def tuning(stage: TuneStage, recipe: Recipe, directory: Path) -> Recipe:
    """The stage as a recipe: maximum likelihood of whole responses, the recipe's model, seed and
    cluster.
    """
    task = RolloutTask(path=stage.demonstrations)
    learn = replace(stage.learn, zero=stage.learn.zero or recipe.learn.zero)
    found = Recipe(
        name=directory.name,
        out=str(directory.parent),
        steps=math.ceil(stage.epochs * len(task.rows) / learn.rollouts_per_step),
        model=replace(recipe.model, lora=stage.lora),
        task=task,
        objective=Nll(),
        loss_aggregation="token_mean",
        learn=learn,
        seed=recipe.seed,
        prompt=recipe.prompt,
        checkpoint=stage.checkpoint,
        track=TrackSettings(tokens_every=0),
        cluster=recipe.cluster,
    )
    if errors := validation_errors(found):
        raise RecipeError(
            "\n".join([f"stage {stage.name} cannot be run:", *(f"  {error}" for error in errors)])
        )
    return found
