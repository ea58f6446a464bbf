"""Suites by name (files in `eval/suites`, or any file of problems), and their prompts."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from reasontrain import resources
from reasontrain.data.files import is_data_file
from reasontrain.recipe import Suite, YamlValue, apply_overrides, build, read_yaml
from reasontrain.tasks.gsm8k import Gsm8k
from reasontrain.tasks.math import MathTask
from reasontrain.types import UserError

SUITES = Path("eval/suites")
PROMPTS = Path("eval/prompts")
DATA_VARIABLE = "REASONTRAIN_DATA"
"""The variable that names the folder with the suites' files, for every command."""


def suite(
    name: str, overrides: Sequence[str], data: Path | None, prompts: str | None = None
) -> Suite:
    """Resolve the name of a suite.

    Args:
        name: a name in eval/suites, a YAML file, or a file of problems.
        overrides: `key=value` settings, which take precedence over all others.
        data: the folder with the suite's problems; None uses the source that the suite names.
        prompts: a name in eval/prompts or a YAML file, which may set any key of a suite; None keeps
            the prompts of the suite.

    Returns:
        The suite; its `task` is set.

    Raises:
        UserError: a file is missing, invalid, or has another hash than the suite states.
    """
    path = Path(name)
    if is_data_file(path):
        content: dict[str, YamlValue] = {
            "name": _slug(path.stem),
            "task": {"kind": "math", "path": name},
        }
        return _built(content, overrides, prompts, name)
    path = _file(name, SUITES, "suite")
    result = _built(read_yaml(path), overrides, prompts, str(path))
    if result.task is None:
        raise UserError(f"{path}: a suite needs a `task`")
    overridden = {override.partition("=")[0] for override in overrides}
    if "task.path" in overridden and "task.hub" not in overridden:
        if isinstance(result.task, Gsm8k | MathTask) and result.task.path is not None:
            # the path replaces the hub data set that the suite names
            return replace(result, task=replace(result.task, hub=None))
        return result
    return result if overridden & {"task", "task.hub"} else with_data(result, data)


def data_folder(named: Path | None = None) -> Path | None:
    """The folder with the suites' files: the named one, else `$REASONTRAIN_DATA`, else None.

    Raises UserError if it is no folder.
    """
    variable = os.environ.get(DATA_VARIABLE)
    folder = named or (Path(variable) if variable else None)
    if folder is not None and not folder.is_dir():
        raise UserError(
            f"{folder} is not a folder; --data and {DATA_VARIABLE} name the folder with the "
            "suites' files"
        )
    return folder


def _file(name: str, folder: Path, what: str) -> Path:
    """The YAML file of a name, in `folder` of the working directory or of the package.

    A path to a YAML file is returned as it is.
    """
    path = Path(name)
    if path.suffix in {".yaml", ".yml"}:
        return path
    folder = folder if folder.is_dir() else resources.folder("eval") / folder.name
    path = folder / f"{name}.yaml"
    if not path.exists():
        names = ", ".join(sorted(p.stem for p in folder.glob("*.yaml"))) or "none"
        raise UserError(
            f"there is no {what} {name!r}; use one of: {names}; or a path to a YAML "
            f"{'or JSONL ' * (what == 'suite')}file"
        )
    return path


def _built(
    content: dict[str, YamlValue], overrides: Sequence[str], prompts: str | None, source: str
) -> Suite:
    """Build the suite of a file's content, merged with its own prompts or with other ones."""
    own_prompts = content.pop("prompts", None)
    chosen = own_prompts if prompts is None else prompts
    if chosen is not None:
        # settings of the suite override its own prompts, but not those of the command line
        content = _merged(
            content,
            read_yaml(_file(str(chosen), PROMPTS, "prompt style")),
            prompts_win=prompts is not None,
        )
    return build(Suite, apply_overrides(content, overrides, Suite), source)


def _merged(
    content: Mapping[str, YamlValue], prompts: Mapping[str, YamlValue], *, prompts_win: bool
) -> dict[str, YamlValue]:
    """Merge both mappings recursively; with `prompts_win`, `prompts` override `content`."""
    result = dict(content)
    for key, value in prompts.items():
        existing = result.get(key)
        if isinstance(existing, dict) and isinstance(value, dict):
            result[key] = _merged(existing, value, prompts_win=prompts_win)
        elif key not in result or prompts_win:
            result[key] = value
    return result


def _slug(stem: str) -> str:
    """Convert a file's name to a suite's, which is part of file names: `my data` -> `my-data`."""
    return re.sub(r"[^\w.-]+", "-", stem).strip("-.") or "problems"


def with_data(suite: Suite, data: Path | None) -> Suite:
    """Take a suite's problems from its file in a folder.

    Args:
        suite: the suite; one without a `file`, or with a task that reads none, stays as it is.
        data: the folder; None keeps the source that the suite names.

    Returns:
        The suite whose task reads the file, with the file's hash.

    Raises:
        UserError: the folder lacks the file, or the file has another hash than the suite states.
    """
    if data is None or suite.file is None or not isinstance(suite.task, Gsm8k | MathTask):
        return suite
    local = data / suite.file
    if not local.exists():
        raise UserError(
            f"suite {suite.name} needs {local}, which does not exist; name the folder that holds "
            f"{suite.file} with --data or {DATA_VARIABLE}"
        )
    with local.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if suite.sha256 not in (None, digest):
        raise UserError(
            f"suite {suite.name} was made for another {suite.file} than {local} (its sha256 is "
            f"{digest[:12]}..., not {str(suite.sha256)[:12]}...); get the same file, or set the "
            f"suite's sha256 (`--set sha256={digest}`), after which results cannot be compared "
            f"with published ones"
        )
    return replace(suite, sha256=digest, task=replace(suite.task, path=str(local), hub=None))
