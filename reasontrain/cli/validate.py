"""`reasontrain validate`: every error of every recipe at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from reasontrain.models import in_folder
from reasontrain.recipe import RecipeError, read_recipe, unused_settings
from reasontrain.types import UserError


def validate(recipes: Sequence[Path], overrides: Sequence[str] = ()) -> None:
    """Print a line per valid recipe; raise one RecipeError with all errors of invalid recipes.

    Args:
        recipes: The recipe files.
        overrides: Settings that override those of each file.

    Raises:
        UserError: There is no recipe to check.
        RecipeError: A recipe is invalid.
    """
    if not recipes:
        raise UserError("which recipe? reasontrain validate RECIPE... [key.path=value ...]")
    faults = []
    for path in recipes:
        try:
            recipe = read_recipe(path, overrides)
            print(f"{path}: ok")
            for role, model in {"model": recipe.model, **recipe.other_models}.items():
                if (directory := in_folder(model.path)) is not None:
                    print(f"  {role}: {model.path} is read from {directory}")
            for line in unused_settings(recipe):
                print(f"  no effect: {line}")
        except UserError as error:
            faults.append(str(error))
    if faults:
        raise RecipeError("\n".join(faults))
