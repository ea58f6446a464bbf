"""`reasontrain recipes`, `suites`, `launch` and `schema`: files that come with the package."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence
from pathlib import Path

from reasontrain import resources
from reasontrain.resources import Resource
from reasontrain.types import UserError, did_you_mean

NAME_WIDTH = 26
"""Columns of a list that names take."""


def listing(items: Sequence[Resource]) -> str:
    """One line for each resource: its name and what it is, cut at the width of the terminal."""
    width = shutil.get_terminal_size((100, 24)).columns - NAME_WIDTH
    return "\n".join(
        f"{item.name:<{NAME_WIDTH}}{textwrap.shorten(item.about, width, placeholder=' ...')}"
        for item in items
    )


def show(names: Sequence[str], items: list[Resource], what: str) -> None:
    """Print the files of these names."""
    for name in names:
        print(resources.find(name, items, what).path.read_text(encoding="utf-8"), end="")


def copy_recipes(names: Sequence[str], directory: Path, *, overwrite: bool) -> list[Path]:
    """Copy recipes; raises UserError if a name is unknown or a copy exists."""
    every = resources.recipes()
    sources = [resources.find(name, every, "recipe").path for name in names]
    return resources.copy(sources, directory, overwrite=overwrite)


def copy_launch_scripts(names: Sequence[str], directory: Path, *, overwrite: bool) -> list[Path]:
    """Copy launch scripts; raises UserError if a name is unknown or a copy exists."""
    top = resources.folder("launch")
    by_name = {path.stem: path for path in sorted(top.iterdir())}
    for name in names:
        if name not in by_name:
            raise UserError(
                f"there are no launch scripts {name!r}{did_you_mean(name, by_name)}; there are "
                f"{', '.join(by_name)}"
            )
    return resources.copy([by_name[name] for name in names], directory, overwrite=overwrite)
