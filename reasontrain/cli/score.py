"""`reasontrain score`: evidence of frozen models, or a teacher's log-probs, stored once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from reasontrain import models, stages
from reasontrain.recipe import StoredTeacher, read_recipe
from reasontrain.run.datasets import score_columns
from reasontrain.run.signals import Stop


def score(path: Path, overrides: Sequence[str]) -> None:
    """Run the recipe's stages, let a stored teacher score, and check the evidence that it reads."""
    recipe = read_recipe(path, overrides)
    models.quiet_libraries()
    with Stop().listening(), models.conversions_in(Path(recipe.out)):
        recipe, _ = stages.done(recipe)
        if isinstance(recipe.teacher, StoredTeacher):
            stages.score_teacher(recipe, recipe.teacher)
        if recipe.stored_evidence or not isinstance(recipe.teacher, StoredTeacher):
            score_columns(recipe)
