"""Stages are done in order and each once: an output is kept under the hash of all that it depends
on.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from reasontrain.data import storage
from reasontrain.recipe import (
    OUTPUTS,
    SCHEME,
    ContrastStage,
    PairsStage,
    Recipe,
    ReferenceStage,
    SampleStage,
    Stage,
    TrajectoriesStage,
    YamlValue,
    as_mapping,
    build,
    split,
)
from reasontrain.run.build import check_directory, run_directory
from reasontrain.run.directory import RunDirectory
from reasontrain.stages import score
from reasontrain.stages.pairs import make_pairs
from reasontrain.stages.sample import read_trajectories, sample
from reasontrain.stages.tune import tune

logger = logging.getLogger(__name__)

MARK = "stage.json"
VERSION = 2
"""Of what stages make: raised when the same settings would make something else."""
WHOLE_BYTES = 64 << 20
"""Files up to this size are known by their content, larger ones by size and time."""
UNHASHED = frozenset({"name", "alarm", "checkpoint"})
"""Settings of a stage that change nothing of what it makes."""
COMPUTING = frozenset({"lora", "device", "gradient_checkpointing", "shape", "export"})
"""Settings of the model that concern the run and not what stages begin with."""


@dataclass(frozen=True)
class StageDirectory:
    """Where a stage's output is, and the hash of what it depends on."""

    directory: Path
    hash: str


def done(recipe: Recipe) -> tuple[Recipe, Mapping[str, Path]]:
    """The recipe with its stages done and their outputs' paths in it, and where each stage's output
    lies.

    They lie in `<out>/stages/<name>-<hash>`, where recipes that share a stage share its output.
    """
    if not recipe.stages:
        return recipe, {}
    check_directory(run_directory(recipe), recipe)
    places: dict[str, StageDirectory] = {}
    outputs = RunDirectory(Path(recipe.out)).stages
    for stage in recipe.stages:
        depends = _depends(stage, recipe, places)
        key = hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()
        directory = outputs / f"{stage.name}-{key[:12]}"
        places[stage.name] = StageDirectory(directory, key)
        content = substituted(as_mapping(stage), partial(_path, places))
        with storage.alone(directory):
            if is_made(directory):
                logger.info(f"{stage.name}: {directory} is there already")
            else:
                _make(build(type(stage), content, stage.name), recipe, directory)
                _mark(stage, directory, depends)
        if isinstance(stage, ContrastStage):
            score.check_contrast(stage, directory)
    return _with_places(recipe, places), {name: place.directory for name, place in places.items()}


def link(run: RunDirectory, places: Mapping[str, Path]) -> None:
    """`stages/<name>` in the run directory, to look at what the run was made from."""
    for name, directory in places.items():
        linked = run.stages / name
        linked.parent.mkdir(parents=True, exist_ok=True)
        linked.unlink(missing_ok=True)
        linked.symlink_to(
            os.path.relpath(directory.resolve(), linked.parent.resolve()), target_is_directory=True
        )


def _make(stage: Stage, recipe: Recipe, directory: Path) -> None:
    """Do one stage, its inputs given as paths."""
    logger.info(f"{stage.name}: begins, in {directory}")
    match stage:
        case SampleStage():
            sample(stage, recipe, directory)
        case TrajectoriesStage():
            read_trajectories(stage, directory)
        case PairsStage():
            make_pairs(stage, recipe, directory)
        case ContrastStage():
            score.contrast(stage, recipe, directory)
        case ReferenceStage():
            score.reference(stage, recipe, directory)
        case _:
            tune(stage, recipe, directory)


def _depends(
    stage: Stage, recipe: Recipe, places: Mapping[str, StageDirectory]
) -> dict[str, YamlValue]:
    """All that a stage's output is a function of: settings, the outputs it reads by their hashes,
    and files by their content.
    """
    own = {key: value for key, value in as_mapping(stage).items() if key not in UNHASHED}
    model = {key: value for key, value in as_mapping(recipe.model).items() if key not in COMPUTING}
    reads = substituted(
        own, lambda reference: f"{places[split(reference)[0]].hash}/{split(reference)[1]}"
    )
    context: dict[str, YamlValue] = {
        "model": model,
        "prompt": as_mapping(recipe.prompt),
        "seed": recipe.seed,
    }
    if recipe.reference is not None:
        context["reference"] = as_mapping(recipe.reference)
    files: dict[str, YamlValue] = {
        path: _facts(Path(path)) for path in sorted(set(_texts([own, model]))) if _is_local(path)
    }
    return {"version": VERSION, "stage": reads, "recipe": context, "files": files}


def _texts(value: object) -> Iterator[str]:
    """Every text in a value of settings."""
    match value:
        case str():
            yield value
        case dict():
            yield from (text for item in value.values() for text in _texts(item))
        case list():
            yield from (text for item in value for text in _texts(item))


def _is_local(text: str) -> bool:
    """Whether a setting names something on this disk."""
    return (
        ("/" in text or "." in text)
        and len(text) < 4096
        and "\n" not in text
        and Path(text).exists()
    )


def _facts(path: Path) -> list[YamlValue]:
    """What a file or the files of a directory hold, as far as it can be told quickly."""
    files = [path] if path.is_file() else sorted(file for file in path.iterdir() if file.is_file())
    return [[file.name, file.stat().st_size, _content(file)] for file in files]


def _content(file: Path) -> str | int:
    if file.stat().st_size > WHOLE_BYTES:
        return file.stat().st_mtime_ns
    return hashlib.sha256(file.read_bytes()).hexdigest()


def substituted(
    settings: Mapping[str, YamlValue], place: Callable[[str], str]
) -> dict[str, YamlValue]:
    """Settings with `place` of each reference in its stead."""
    return {key: _placed(value, place) for key, value in settings.items()}


def _placed(value: YamlValue, place: Callable[[str], str]) -> YamlValue:
    match value:
        case str() if value.startswith(SCHEME):
            return place(value)
        case dict():
            return substituted(value, place)
        case list():
            return [_placed(item, place) for item in value]
    return value


def _path(places: Mapping[str, StageDirectory], reference: str) -> str:
    name, file = split(reference)
    return str(places[name].directory / file)


def _with_places(recipe: Recipe, places: Mapping[str, StageDirectory]) -> Recipe:
    """The recipe with paths for references, and nothing left to be done before it."""
    content = {key: value for key, value in as_mapping(recipe).items() if key != "stages"}
    return build(Recipe, substituted(content, partial(_path, places)), recipe.name)


def _mark(stage: Stage, directory: Path, depends: Mapping[str, YamlValue]) -> None:
    """Write, last of all, that a stage is done: what it depends on, and the size of each file that
    it made.
    """
    made = {
        str(file.relative_to(directory)): file.stat().st_size
        for file in sorted(_outputs(directory, OUTPUTS[stage.kind]))
    }
    text = json.dumps(
        {"kind": stage.kind, "depends": depends, "files": made}, indent=1, ensure_ascii=False
    )
    storage.replace_text(directory / MARK, text + "\n")


def _outputs(directory: Path, names: tuple[str, ...]) -> Iterator[Path]:
    for name in names:
        path = directory / name
        yield from (file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]


def is_made(directory: Path) -> bool:
    """Whether a stage came to its end here, and its files are still as long as they were."""
    mark = directory / MARK
    if not mark.exists():
        return False
    files: dict[str, int] = json.loads(mark.read_text(encoding="utf-8"))["files"]
    return all(
        (directory / name).is_file() and (directory / name).stat().st_size == size
        for name, size in files.items()
    )
