"""Checkpoints that are complete or absent: write, verify, rotate and find them."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from reasontrain.data import storage
from reasontrain.models import Description
from reasontrain.recipe import MovingAverage, Muon, Recipe
from reasontrain.run.directory import RunDirectory
from reasontrain.types import UserError

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
FLOAT32 = 4
"""Bytes of a number."""
SMALL_FILES = 1 << 20
"""Bytes of configurations, manifests and counters."""


def save(
    run: RunDirectory,
    step: int,
    write: Callable[[Path], None],
    *,
    keep: int,
    scores: Mapping[int, float] | None = None,
) -> Path:
    """Write a checkpoint, as a whole or not at all, and remove old ones.

    The manifest with the size and SHA-256 of every file is written last, and the directory is
    renamed into place after it. Checkpoints of later steps are removed too: this run skipped them
    as damaged when it resumed.

    Args:
        run: The run directory.
        step: Number of steps that the model has been trained for.
        write: Writes the files of the checkpoint into a directory.
        keep: Number of newest checkpoints to keep, besides the best one.
        scores: Score by step, for steps that were evaluated; the highest is the best, and the later
            of equal ones.

    Returns:
        The directory of the checkpoint.

    Raises:
        RunError: The disk is full.
    """
    target = run.checkpoint_at(step)
    if target.exists() and not damage(target):
        return target  # the same step of the same run: nothing new to keep
    partial = target.with_name(f".partial-{target.name}")
    shutil.rmtree(partial, ignore_errors=True)
    with storage.whole(partial):
        write(partial)
        manifest = {
            "step": step,
            "files": {name: _facts(partial / name) for name in _files(partial)},
        }
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=1))
        _sync(partial)
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    steps = [number for number, _ in run.checkpoint_directories() if number <= step]
    kept = {*steps[:keep], best(steps, scores or {})}
    for number, directory in run.checkpoint_directories():
        if number not in kept:
            shutil.rmtree(directory)
    return target


def best(steps: Iterable[int], scores: Mapping[int, float]) -> int | None:
    """The step with the highest score, the later of equal ones; None if no step has a score."""
    return max(
        (step for step in steps if step in scores),
        key=lambda step: (scores[step], step),
        default=None,
    )


def final(run: RunDirectory, write: Callable[[Path], None]) -> None:
    """Write `final/`, as a whole or not at all."""
    target = run.final
    partial = target.with_name(f".partial-{target.name}")
    shutil.rmtree(partial, ignore_errors=True)
    with storage.whole(partial):
        write(partial)
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)


def newest(run: RunDirectory) -> tuple[int, Path] | None:
    """The newest complete checkpoint as (step, directory).

    A damaged one is skipped with a warning.
    """
    for step, directory in run.checkpoint_directories():
        reason = damage(directory)
        if reason is None:
            return step, directory
        logger.warning(f"checkpoint {directory} is damaged ({reason}); the one before it is used")
    return None


def damage(directory: Path) -> str | None:
    """The reason why a checkpoint cannot be trusted; None if it is intact."""
    try:
        files = json.loads((directory / MANIFEST).read_text())["files"]
    except (OSError, ValueError, KeyError, TypeError):
        return f"{MANIFEST} is missing or unreadable"
    for name, facts in files.items():
        path = directory / name
        if not path.is_file():
            return f"{name} is missing"
        if _facts(path) != facts:
            return f"{name} is not what was written"
    return None


def checkpoint_bytes(recipe: Recipe, described: Description) -> int:
    """Bytes of one checkpoint, but for small files.

    It has the trained weights in float32 twice, as a model or adapters and in the optimiser's
    state, and two moments per parameter, of which Muon's matrices have one.
    """
    per_matrix = 12 if isinstance(recipe.learn.optimizer, Muon) else 16
    others = described.num_trained - described.num_matrices
    size = per_matrix * described.num_matrices + 16 * others + described.saved_bytes()
    if isinstance(recipe.history, MovingAverage):
        size += FLOAT32 * described.num_parameters
    return size


def final_bytes(recipe: Recipe, described: Description) -> int:
    """Bytes of `final/`, but for small files: the whole model, and its adapters alone."""
    dtype = recipe.model.export or recipe.model.dtype
    size = (FLOAT32 if dtype == "float32" else 2) * described.num_parameters
    size += described.saved_bytes()
    if recipe.model.lora is not None:
        size += FLOAT32 * described.num_trained + described.saved_bytes()
    return size


def needed_bytes(run: RunDirectory, recipe: Recipe, described: Description) -> int:
    """The most bytes of a run's checkpoints and `final/` at one time, small files included.

    An old checkpoint is removed once a new one is complete.
    """
    settings = recipe.checkpoint
    kept = settings.num_kept
    written = -(-recipe.steps // settings.every) if settings.every else 1
    written += len(run.checkpoint_directories())
    one = checkpoint_bytes(recipe, described)
    saving = min(written, kept + 1) * one
    finishing = min(written, kept) * one + final_bytes(recipe, described)
    return max(saving, finishing) + SMALL_FILES


def check_space(run: RunDirectory, needed: int) -> None:
    """Raise UserError if the disk has not as many bytes for a run's checkpoints and final model."""
    parent = next(p for p in (run.path, *run.path.absolute().parents) if p.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise UserError(
            f"{run} cannot be written, because {parent} is not a writable folder; "
            f"point `out` elsewhere"
        )
    own = sum(file.stat().st_size for file in run.checkpoints.rglob("*") if file.is_file())
    free = shutil.disk_usage(parent).free + own  # existing checkpoints of this run will be removed
    if free < needed:
        raise UserError(
            f"the disk under {parent} has {free / 1e9:.2f} GB free, and this run needs "
            f"{needed / 1e9:.2f} GB for its "
            "checkpoints and final model; make room, point `out` elsewhere or lower checkpoint.keep"
        )


def _files(directory: Path) -> list[str]:
    """Relative names of all files below a directory."""
    return sorted(str(p.relative_to(directory)) for p in directory.rglob("*") if p.is_file())


def _facts(path: Path) -> dict[str, int | str]:
    """Size and SHA-256 of a file."""
    with path.open("rb") as stream:
        return {
            "bytes": path.stat().st_size,
            "sha256": hashlib.file_digest(stream, "sha256").hexdigest(),
        }


def _sync(directory: Path) -> None:
    """Force every file of a directory to the disk."""
    for name in [*_files(directory), "."]:
        handle = os.open(directory / name, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
