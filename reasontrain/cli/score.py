"""`reasontrain score`: evidence of a frozen model, computed once and stored."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from reasontrain.assemble import score_columns
from reasontrain.cli.terminal import quiet_libraries
from reasontrain.recipe import read_recipe


def score(path: Path, overrides: Sequence[str]) -> None:
    """Store what the recipe's rule reads; what is there already is not computed again."""
    recipe = read_recipe(path, overrides)
    quiet_libraries()
    score_columns(recipe, lambda line: print(line, flush=True))
