"""Files that come with the package: recipes, evaluation suites, prompts and launch scripts.

In a checkout they are its top-level folders `recipes`, `eval` and `launch`; a wheel holds copies of
them beside this file.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from reasontrain.types import UserError, did_you_mean

Folder = Literal["recipes", "eval", "launch"]
HERE = Path(__file__).resolve().parent
SCHEMA_LINE = "# yaml-language-server: $schema="
"""The comment by which editors know the keys of a recipe; the path of the schema follows."""
_SCHEMA = re.compile(f"(?m)^{re.escape(SCHEMA_LINE)}.*$")
SCHEMA = "schema.json"
"""The JSON schema of recipes, in the folder `recipes`."""


@dataclass(frozen=True, kw_only=True)
class Resource:
    """A file that comes with the package.

    Attributes:
        name: the path below its folder, without the suffix: `tiny/tip`.
        path: the file.
        about: the first sentence of its heading comment.
    """

    name: str
    path: Path
    about: str


def folder(name: Folder) -> Path:
    """The folder of this name, of the wheel or of the checkout."""
    return next(path for path in (HERE / name, HERE.parents[1] / name) if path.is_dir())


def recipes() -> list[Resource]:
    """All recipes, those of tiny models first."""
    top = folder("recipes")
    paths = (path for path in top.rglob("*.yaml") if "\nobjective:" in path.read_text("utf-8"))
    return sorted(_resources(paths, top), key=lambda recipe: ("/" not in recipe.name, recipe.name))


def suites() -> list[Resource]:
    """All evaluation suites."""
    top = folder("eval") / "suites"
    return sorted(_resources(top.glob("*.yaml"), top), key=lambda suite: suite.name)


def find(name: str, resources: list[Resource], what: str) -> Resource:
    """The resource of this name; raises UserError with the nearest name if there is none."""
    by_name = {resource.name: resource for resource in resources}
    wanted = name.removeprefix("recipes/").removesuffix(".yaml")
    if wanted not in by_name:
        raise UserError(
            f"there is no {what} {name!r}{did_you_mean(wanted, by_name)}; "
            f"`reasontrain {what}s` lists them"
        )
    return by_name[wanted]


def copy_advice(path: Path) -> str:
    """The command that copies a recipe, to follow a path at which it is missing; "" for others."""
    for recipe in recipes():
        if path.with_suffix("").as_posix() in (recipe.name, f"recipes/{recipe.name}"):
            return f"; `reasontrain recipes copy {recipe.name}` copies that recipe here"
    return ""


def copy(sources: Sequence[Path], directory: Path, *, overwrite: bool = False) -> list[Path]:
    """Copy files and folders into a directory; all of them, or none.

    The schema that a recipe's comment names is then the one of this installation.

    Args:
        sources: files and folders that come with the package.
        directory: the directory; made if it does not exist.
        overwrite: replace what exists.

    Returns:
        The copies.

    Raises:
        UserError: a copy exists, or two would have one name.
    """
    targets = {directory / source.name: source for source in sources}
    if len(targets) < len(set(sources)):
        names = [source.name for source in sources]
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"two of them are named {twice}; copy them --to different directories")
    for target, source in targets.items():
        if target.exists() and (not overwrite or target.samefile(source)):
            raise UserError(
                f"{target} exists; add --force to replace it, or copy it --to elsewhere"
            )
    directory.mkdir(parents=True, exist_ok=True)
    for target, source in targets.items():
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        else:
            shutil.copy(source, target)
            text = target.read_text(encoding="utf-8")
            schema = (folder("recipes") / SCHEMA).as_posix()
            target.write_text(_SCHEMA.sub(f"{SCHEMA_LINE}{schema}", text), encoding="utf-8")
    return list(targets)


def _resources(paths: Iterator[Path], top: Path) -> Iterator[Resource]:
    for path in paths:
        name = path.relative_to(top).with_suffix("").as_posix()
        yield Resource(name=name, path=path, about=_about(path.read_text(encoding="utf-8")))


def _about(text: str) -> str:
    """The first sentence of the comment at the top of a file."""
    comment = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith(("#!", SCHEMA_LINE)):
            comment.append(line.lstrip("# "))
    return re.split(r"(?<=\.)\s(?=[A-Z])", " ".join(comment), maxsplit=1)[0]
