"""`reasontrain score`: evidence of frozen models, computed once and stored."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from reasontrain import models, stages
from reasontrain.recipe import read_recipe
from reasontrain.run.datasets import score_columns
from reasontrain.run.signals import Stop


def score(path: Path, overrides: Sequence[str]) -> None:
    """Run the recipe's stages and check the stored evidence that it reads."""
    recipe = read_recipe(path, overrides)
    models.quiet_libraries()
    with Stop().listening(), models.conversions_in(Path(recipe.out)):
        recipe, _ = stages.done(recipe)
        score_columns(recipe)
