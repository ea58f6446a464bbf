"""The folder of models on this machine, where the ids of hub models are looked up first."""

from __future__ import annotations

import os
from pathlib import Path

from reasontrain.types import UserError

VARIABLE = "REASONTRAIN_MODELS"
CONVERTED_VARIABLE = "REASONTRAIN_CONVERTED"
MODEL_VARIABLES = (VARIABLE, CONVERTED_VARIABLE)
"""Environment variables that decide from where a model is read."""


def folder() -> Path | None:
    """The folder that `$REASONTRAIN_MODELS` names; raises UserError if there is no such folder."""
    value = os.environ.get(VARIABLE)
    if not value:
        return None
    path = Path(value).expanduser()
    if not path.is_dir():
        raise UserError(
            f"{VARIABLE} is {value}, which is not a folder; it names the folder with the "
            f"directories of models"
        )
    return path


def in_folder(name: str) -> Path | None:
    """The directory of a hub model below the folder: `owner/name`, or else `name` alone.

    None without a folder, for what cannot be a hub id, and if the folder does not have the model.
    """
    if not is_hub_id(name) or Path(name).exists():
        return None
    root = folder()
    if root is None:
        return None
    for place in (root / name, root / name.rpartition("/")[2]):
        if place.is_dir():
            return place
    return None


def is_hub_id(name: str) -> bool:
    """True for `name` and `owner/name`, which may be a hub model and no path."""
    return not (
        name.startswith((".", "/", "~"))
        or name.endswith((".gguf", "/"))
        or ":" in name
        or name.count("/") > 1
    )
