"""`reasontrain score`: evidence of frozen models, computed once and stored."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from reasontrain import models, stages
from reasontrain.recipe import read_recipe
from reasontrain.run.datasets import score_columns


def score(path: Path, overrides: Sequence[str]) -> None:
    """Store what the recipe reads, by its stages where it has some; what is there already is read,
    and not computed again.
    """
    recipe = read_recipe(path, overrides)
    models.quiet_libraries()
    recipe, _ = stages.done(recipe)
    score_columns(recipe)
