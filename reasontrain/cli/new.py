"""`reasontrain new plugin`: a template repository with a selection rule, its test and a recipe."""

from __future__ import annotations

import keyword
import re
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

from reasontrain import plugins
from reasontrain.algo.token_selection import SelectionRule, ShuffledWeights
from reasontrain.types import UserError

TEMPLATE = Path(plugins.__file__).parent / "template"
"""Files of the repository; NAME, KIND, MODULE and CLASS are replaced in names and content."""
SUFFIX = ".txt"
"""Ends the names of Python files of the template, which are no modules of this package."""
_NAME = re.compile(r"[a-z][a-z0-9_-]*")


def new_plugin(name: str, directory: Path, *, overwrite: bool) -> list[Path]:
    """Write a template repository for a plug-in.

    Args:
        name: the name of the package: lower-case letters, digits, `-` and `_`.
        directory: the folder in which the repository's folder is made.
        overwrite: replace files that exist.

    Returns:
        The files.

    Raises:
        UserError: the name is not valid or is taken, or a file exists.
    """
    words = _words(name)
    files: dict[Path, str] = {}
    for template in sorted(path for path in TEMPLATE.rglob("*") if path.is_file()):
        file = _filled(template.relative_to(TEMPLATE).as_posix().removesuffix(SUFFIX), words)
        files[directory / name / file] = _filled(template.read_text(encoding="utf-8"), words)
    if not overwrite and (existing := [path for path in files if path.exists()]):
        raise UserError(f"{existing[0]} exists; choose another name, or --force to replace it")
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return list(files)


def _words(name: str) -> dict[str, str]:
    """Replacements of the words of the template."""
    if not _NAME.fullmatch(name):
        raise UserError(
            f"{name!r} is no name of a package; use lower-case letters, digits, `-` and `_`, with "
            "a letter at the start"
        )
    module = name.replace("-", "_")
    kinds = {rule.kind for rule in (*get_args(SelectionRule), ShuffledWeights)}
    if module in kinds:
        raise UserError(f"{name} is a rule of reasontrain; choose another name")
    if keyword.iskeyword(module) or find_spec(module) is not None:
        raise UserError(f"{name} is a word of Python, or an installed package; choose another name")
    return {
        "NAME": name,
        "KIND": module,
        "MODULE": module,
        "CLASS": "".join(part.capitalize() for part in re.split("[-_]", name)),
    }


def _filled(text: str, words: dict[str, str]) -> str:
    return re.sub(r"\b(?:NAME|KIND|MODULE|CLASS)\b", lambda word: words[word[0]], text)
