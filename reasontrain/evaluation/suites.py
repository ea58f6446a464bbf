"""Suites by name: files in `eval/suites`, or any file of problems; how they are put to a model:
files in `eval/prompts`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from reasontrain.data.files import ENDINGS
from reasontrain.recipe import Suite, YamlValue, apply_overrides, build, read_yaml
from reasontrain.tasks.gsm8k import Gsm8k
from reasontrain.tasks.math import MathTask
from reasontrain.types import UserError

SUITES, PROMPTS = Path("eval/suites"), Path("eval/prompts")


def suite(
    name: str, overrides: Sequence[str], data: Path | None, prompts: str | None = None
) -> Suite:
    """The suite that `name` means: a name in eval/suites, a YAML file, or a file of problems;
    `data` holds its problems.

    `prompts` (a name in eval/prompts, or a YAML file) says how it is put to the model; without it,
    what the suite says. It may set whatever a suite may, and `overrides` win.
    """
    path = Path(name)
    if path.suffix in ENDINGS:
        content: dict[str, YamlValue] = {
            "name": _slug(path.stem),
            "task": {"kind": "math", "path": name},
        }
        return _built(content, overrides, prompts, name)
    path = _file(name, SUITES, "suite")
    found = _built(read_yaml(path), overrides, prompts, str(path))
    if found.task is None:
        raise UserError(f"{path}: a suite needs a `task`")
    return _with_data(found, overrides, data)


def _file(name: str, folder: Path, what: str) -> Path:
    """The YAML file that a name means in a folder of `eval`, here or beside the package's source;
    or a path to one.
    """
    path = Path(name)
    if path.suffix in {".yaml", ".yml"}:
        return path
    folder = folder if folder.is_dir() else Path(__file__).parents[2] / folder
    path = folder / f"{name}.yaml"
    if not path.exists():
        there = ", ".join(sorted(p.stem for p in folder.glob("*.yaml"))) or "none"
        raise UserError(
            f"there is no {what} {name!r}; there is: {there}; or give a YAML "
            f"{'or JSONL ' * (what == 'suite')}file"
        )
    return path


def _built(
    content: dict[str, YamlValue], overrides: Sequence[str], prompts: str | None, source: str
) -> Suite:
    """The suite of a file's content, with its own prompts or others laid over it."""
    own = content.pop("prompts", None)
    chosen = own if prompts is None else prompts
    if chosen is not None:
        content = _laid_over(
            content, read_yaml(_file(str(chosen), PROMPTS, "prompt style")), weaker=prompts is None
        )
    return build(Suite, apply_overrides(content, overrides), source)


def _laid_over(
    content: Mapping[str, YamlValue], prompts: Mapping[str, YamlValue], *, weaker: bool
) -> dict[str, YamlValue]:
    """Both mappings in one; where both say something, the prompts win, unless they are the suite's
    own and so `weaker`.
    """
    result = dict(content)
    for key, value in prompts.items():
        there = result.get(key)
        if isinstance(there, dict) and isinstance(value, dict):
            result[key] = _laid_over(there, value, weaker=weaker)
        elif key not in result or not weaker:
            result[key] = value
    return result


def _slug(stem: str) -> str:
    """A file's name as a suite's, which names files itself: `my data` becomes `my-data`."""
    return re.sub(r"[^\w.-]+", "-", stem).strip("-.") or "problems"


def _with_data(found: Suite, overrides: Sequence[str], data: Path | None) -> Suite:
    """The suite with its problems from the folder `data`, unless an override says where they are."""
    if not isinstance(found.task, Gsm8k | MathTask):
        return found
    said = {override.partition("=")[0] for override in overrides}
    if "task.path" in said and "task.hub" not in said and found.task.path is not None:
        return replace(
            found, task=replace(found.task, hub=None)
        )  # in place of the hub data set that the suite names
    if data is None or found.file is None or said & {"task", "task.path", "task.hub"}:
        return found
    local = data / found.file
    if not local.exists():
        raise UserError(
            f"suite {found.name} looks for {local}, which does not exist; give the folder "
            f"that holds {found.file}"
        )
    with local.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if found.sha256 not in (None, digest):
        raise UserError(
            f"suite {found.name} was made for another {found.file} than {local} (sha256 "
            f"{digest[:12]}..., and the suite says "
            f"{str(found.sha256)[:12]}...); get the same file, or say `--set "
            f"sha256={digest}` and compare with nobody"
        )
    return replace(found, sha256=digest, task=replace(found.task, path=str(local), hub=None))
