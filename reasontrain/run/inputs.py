"""Fingerprints of what a run depends on beside its recipe, and what of it changed on resume."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import get_args

from transformers import PreTrainedTokenizerBase

from reasontrain import models
from reasontrain.data import storage
from reasontrain.data.evidence_columns import column_of
from reasontrain.data.order import Order
from reasontrain.data.prompts import LazyPrompts
from reasontrain.models import Description
from reasontrain.plugins import copies_root, plugins_in
from reasontrain.recipe import AcceptedChange, Recipe
from reasontrain.run.datasets import EncodedSuite
from reasontrain.run.directory import RunDirectory
from reasontrain.run.environments import environment_code
from reasontrain.run.teacher import stored_files
from reasontrain.sampler.offline import OfflineSampler
from reasontrain.tasks import Task
from reasontrain.types import Problem, UserError

logger = logging.getLogger(__name__)

Inputs = Mapping[str, Mapping[str, str]]
"""Fingerprints by role (one of `AcceptedChange`) and by file or other part of the role."""

ENCODED = "prompts and responses as the model reads them"
CODE = ".py"
NUM_GENERATED = 64
"""Generated problems that are looked at: they are many, and encoded step by step."""


def inputs_of(
    recipe: Recipe,
    described: Description,
    order: Order,
    written: OfflineSampler | None,
    suites: Sequence[EncodedSuite],
) -> Inputs:
    """Fingerprints of everything that a step of the run depends on.

    Args:
        recipe: the recipe, with paths in place of references to stages.
        described: the model's tokenizer and template.
        order: the prompts.
        written: the written responses, if there are any.
        suites: the suites of evaluations during the run.
    """
    hashes: dict[str, dict[str, str]] = {
        "data": _hashes(_data_files(recipe.task)) | {ENCODED: _encoded(order, written)},
        "reward": _hashes(_reward_files(recipe.task)),
        "environment": _hashes(
            environment_code(recipe.sample.environment if recipe.sample else None)
        ),
        "evidence": _hashes(
            file
            for path in [*evidence_files(recipe), *stored_files(recipe)]
            for file in _stored_files(path)
        ),
        "plugin": {
            name: hashlib.sha256(content).hexdigest()
            for name, content in plugin_files(recipe).items()
        },
        "tokenizer": {recipe.model.path: _tokenizer_hash(described.tokenizer)},
        "template": {recipe.model.path: _hash([str(described.tokenizer.chat_template)])},
        "suites": {encoded.suite.name: encoded.sha256 for encoded in suites}
        | _hashes(file for e in suites if e.suite.task for file in _reward_files(e.suite.task))
        | _hashes(file for e in suites for file in environment_code(e.suite.sampling.environment)),
    }
    for role, model in {"model": recipe.model, **recipe.other_models}.items():
        # Several teachers have one role.
        known = hashes.setdefault(role.partition(".")[0], {})
        known[model.path] = models.quick_fingerprint(model)
    assert hashes.keys() <= set(get_args(AcceptedChange)), "each role can be accepted"
    return hashes


def evidence_files(recipe: Recipe) -> list[Path]:
    """The files of stored evidence; columns are in the data, whose files are listed apart."""
    return [Path(source) for source in recipe.stored_evidence.values() if column_of(source) is None]


def check_inputs(
    directory: RunDirectory, recipe: Recipe, inputs: Inputs
) -> list[dict[str, object]]:
    """Compare with what the run was started with, if it has a checkpoint to resume from.

    Returns:
        The record of accepted changes.

    Raises:
        UserError: an input changed, and `resume.accept` does not name its role.
    """
    recorded = directory.read_inputs()
    if recorded is None:
        return []
    accepted = list(recorded["accepted"])
    if not directory.checkpoint_directories():
        return accepted  # the run starts over
    refused: dict[str, list[str]] = {}
    for role, parts in _changes(recorded["inputs"], inputs).items():
        if role not in recipe.resume.accept:
            refused[role] = parts
            continue
        logger.warning(f"{directory}: {_sentence(role, parts)}; accepted (resume.accept)")
        accepted.append(
            {
                "after_steps": directory.checkpoint_directories()[0][0],
                "time": datetime.now().isoformat(" ", "seconds"),
                "role": role,
                "before": {part: recorded["inputs"].get(role, {}).get(part) for part in parts},
                "now": {part: inputs.get(role, {}).get(part) for part in parts},
            }
        )
    if refused:
        sentences = "; ".join(_sentence(role, parts) for role, parts in refused.items())
        raise UserError(
            f"{directory} cannot be resumed, because what it was trained on has changed: "
            f"{sentences}. Restore it, choose another `name`, or accept it with "
            f"resume.accept=[{', '.join(sorted({*recipe.resume.accept, *refused}))}]"
        )
    return accepted


def _changes(before: Inputs, now: Inputs) -> dict[str, list[str]]:
    """The parts of each role that differ; a suite that is new or gone is no change."""
    changes: dict[str, list[str]] = {}
    for role in now:
        old = before.get(role, {})
        new = now[role]
        names = old.keys() & new.keys() if role == "suites" else old.keys() | new.keys()
        differing = sorted(name for name in names if old.get(name) != new.get(name))
        if differing:
            changes[role] = differing
    # What is encoded differs as well if its file, the tokenizer or the template does.
    explained = changes.keys() & {"tokenizer", "template"} or len(changes.get("data", ())) > 1
    if explained and ENCODED in changes.get("data", ()):
        changes["data"].remove(ENCODED)
        if not changes["data"]:
            del changes["data"]
    return changes


def _sentence(role: str, parts: Sequence[str]) -> str:
    return f"{role}: {', '.join(parts)}"


def _data_files(task: Task) -> list[Path]:
    """The local files that hold the task's problems."""
    return [path for path in task.files() if path.suffix != CODE]


def _reward_files(task: Task) -> list[Path]:
    """The local files of the task's own reward, with the modules that it imports."""
    return [path for path in task.files() if path.suffix == CODE]


def plugin_files(recipe: Recipe) -> dict[str, bytes]:
    """The files of plug-ins by the path below `plugins` that each has in the run directory.

    There the recipe finds them as it found the originals beside itself. These paths do not depend
    on the place of the recipe, which is another for each job that is submitted with its folder.

    Raises:
        UserError: two files would have one path.
    """
    copies: dict[str, bytes] = {}
    for plugin in plugins_in(recipe):
        source = plugin.plugin_source
        root = copies_root(source, plugin.kind)
        for path, content in source.files().items():
            name = (root / Path(path).relative_to(source.root)).as_posix()
            if copies.setdefault(name, content) != content:
                raise UserError(
                    f"two plug-ins have different files {name}, which the run directory keeps in "
                    "one folder; rename one"
                )
    return copies


def _stored_files(path: Path) -> list[Path]:
    """A file of stored evidence, or the parts of a store."""
    return sorted(path.glob("*.parquet")) if path.is_dir() else [path]


def _hashes(paths: Iterable[Path]) -> dict[str, str]:
    """Fingerprints of the files that exist, by path."""
    return {str(path): storage.content_hash(path) for path in paths if path.exists()}


def _encoded(order: Order, written: OfflineSampler | None) -> str:
    """A hash of problems, token ids and written responses, in order."""
    prompts = order.prompts
    if isinstance(prompts, LazyPrompts):
        prompts = prompts[:NUM_GENERATED]
    parts = (
        f"{prompt!r} {written.written[prompt.problem.id] if written else ''!r} "
        f"{_image_hash(prompt.problem)}"
        for prompt in prompts
    )
    return _hash(parts)


def _image_hash(problem: Problem) -> str:
    """A hash of the image's file; an image in memory is part of the problem's own text."""
    path = problem.image.path if problem.image is not None else None
    return "" if path is None else storage.content_hash(Path(path))


def _tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """A hash of everything that turns text into ids."""
    if tokenizer.is_fast:
        content = json.loads(tokenizer.backend_tokenizer.to_str())
        for key in ("padding", "truncation"):  # settings of the last call
            content.pop(key, None)
    else:
        content = sorted(tokenizer.get_vocab().items())
    return _hash([json.dumps(content, sort_keys=True), repr(tokenizer.special_tokens_map)])


def _hash(texts: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode("utf-8", "surrogatepass"))
        digest.update(b"\0")
    return digest.hexdigest()
