"""Suites by name: files in `eval/suites`, or any file of problems."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from reasontrain.data.files import ENDINGS
from reasontrain.recipe import Suite, apply_overrides, build, read_yaml
from reasontrain.tasks.gsm8k import Gsm8k
from reasontrain.tasks.math import MathTask
from reasontrain.types import UserError

SUITES = Path("eval/suites")


def suite(name: str, overrides: Sequence[str], data: Path | None) -> Suite:
    """The suite that `name` means: a name in eval/suites, a YAML file, or a file of problems; `data` holds its problems."""
    path = Path(name)
    if path.suffix in ENDINGS:
        return build(Suite, apply_overrides({"name": _slug(path.stem), "task": {"kind": "math", "path": name}}, overrides), name)
    if path.suffix not in {".yaml", ".yml"}:
        path = _folder() / f"{name}.yaml"
        if not path.exists():
            there = ", ".join(sorted(p.stem for p in _folder().glob("*.yaml"))) or "none"
            raise UserError(f"there is no suite {name!r}; there is: {there}; or give a YAML or JSONL file")
    found = build(Suite, apply_overrides(read_yaml(path), overrides), str(path))
    if found.task is None:
        raise UserError(f"{path}: a suite needs a `task`")
    return _with_data(found, overrides, data)


def _slug(stem: str) -> str:
    """A file's name as a suite's, which names files itself: `my data` becomes `my-data`."""
    return re.sub(r"[^\w.-]+", "-", stem).strip("-.") or "problems"


def _folder() -> Path:
    """`eval/suites` here, or beside the package's source."""
    return SUITES if SUITES.is_dir() else Path(__file__).parents[2] / SUITES


def _with_data(found: Suite, overrides: Sequence[str], data: Path | None) -> Suite:
    """The suite with its problems from the folder `data`, unless an override says where they are."""
    if not isinstance(found.task, Gsm8k | MathTask):
        return found
    said = {override.partition("=")[0] for override in overrides}
    if "task.path" in said and "task.hub" not in said and found.task.path is not None:
        return replace(found, task=replace(found.task, hub=None))  # in place of the hub data set that the suite names
    if data is None or found.file is None or said & {"task", "task.path", "task.hub"}:
        return found
    local = data / found.file
    if not local.exists():
        raise UserError(f"suite {found.name} looks for {local}, which does not exist; give the folder that holds {found.file}")
    return replace(found, task=replace(found.task, path=str(local), hub=None))
