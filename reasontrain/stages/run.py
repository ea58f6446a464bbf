"""Run stages in order, each once; outputs are named by a hash of everything they depend on."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from reasontrain.data import storage
from reasontrain.metrics.timing import start_phase
from reasontrain.recipe import (
    OUTPUTS,
    SCHEME,
    ContrastStage,
    LogRatioStage,
    PairsStage,
    Recipe,
    ReferenceStage,
    SampleStage,
    Stage,
    TrajectoriesStage,
    YamlValue,
    as_mapping,
    build,
    folder_of,
    split,
)
from reasontrain.run.build import check_directory, describe_models, run_directory
from reasontrain.run.directory import RunDirectory
from reasontrain.run.owner import owned
from reasontrain.run.unconditional import COLUMN
from reasontrain.stages import score, unconditional
from reasontrain.stages.pairs import make_pairs
from reasontrain.stages.sample import read_trajectories, sample
from reasontrain.stages.tune import check_warmup, tune

logger = logging.getLogger(__name__)

MARK = "stage.json"
VERSION = 3
"""Part of every hash; raised when the same settings would produce another output."""
WHOLE_BYTES = 64 << 20
"""Files up to this size are hashed by content, larger ones by size and modification time."""
UNHASHED = frozenset({"name", "alarm", "checkpoint"})
"""Settings of a stage that do not change its output."""
COMPUTING = frozenset({"lora", "device", "gradient_checkpointing", "shape", "export"})
"""Settings of the model that do not change the weights that stages start from."""


@dataclass(frozen=True)
class StageDirectory:
    """The directory of a stage's output, and the hash of everything the output depends on."""

    directory: Path
    hash: str


def done(recipe: Recipe) -> tuple[Recipe, Mapping[str, Path]]:
    """Run the recipe's stages whose outputs do not exist yet.

    Outputs are in `<out>/stages/<name>-<hash>`, so recipes that share a stage share its output. If
    a rule needs the log-probs of the unconditional reference, the recipe's `unconditional` is one
    more stage after the declared ones, named `uncond_logp`.

    Returns:
        The recipe with references replaced by paths of outputs, and each stage's directory by name.
    """
    if not recipe.stages and not unconditional.is_needed(recipe):
        return recipe, {}
    check_directory(run_directory(recipe), recipe)
    check_warmup(recipe)
    places: dict[str, StageDirectory] = {}
    for stage in recipe.stages:
        places[stage.name] = _done(stage, recipe, places)
    resolved = _with_places(recipe, places)
    directories = {name: place.directory for name, place in places.items()}
    if unconditional.is_needed(resolved):
        # Loading checks this again, but only after the reference has been trained and scored.
        describe_models(resolved)
        store = unconditional.score_demonstrations(resolved)
        directories[COLUMN] = store
        resolved = replace(resolved, evidence={**resolved.evidence, COLUMN: str(store)})
    return resolved, directories


def _done(stage: Stage, recipe: Recipe, places: Mapping[str, StageDirectory]) -> StageDirectory:
    """Run one stage unless its output exists; `places` has the outputs of earlier stages."""
    depends = _depends(stage, recipe, places)
    key = hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()
    directory = RunDirectory(Path(recipe.out)).stages / f"{stage.name}-{key[:12]}"
    content = substituted(as_mapping(stage), partial(_path, places))
    with owned(directory, wait=True):
        if is_made(directory):
            logger.info(f"{stage.name}: found in {directory}")
        else:
            resolved = build(type(stage), content, stage.name, folder=folder_of(recipe))
            _make(resolved, recipe, directory)
            _mark(stage, directory, depends)
    if isinstance(stage, ContrastStage):
        score.check_contrast(stage, directory)
    return StageDirectory(directory, key)


def link(run: RunDirectory, places: Mapping[str, Path]) -> None:
    """Link `stages/<name>` in the run directory to the outputs that the run used."""
    for name, directory in places.items():
        linked = run.stages / name
        linked.parent.mkdir(parents=True, exist_ok=True)
        linked.unlink(missing_ok=True)
        linked.symlink_to(
            os.path.relpath(directory.resolve(), linked.parent.resolve()), target_is_directory=True
        )


def _make(stage: Stage, recipe: Recipe, directory: Path) -> None:
    """Run one stage whose references to other stages have been replaced by paths."""
    number = [declared.name for declared in recipe.stages].index(stage.name) + 1
    start_phase(
        logger,
        f"{stage.name}: running in {directory} (stage {number} of {len(recipe.stages)}, "
        f"{stage.kind})",
    )
    match stage:
        case SampleStage():
            sample(stage, recipe, directory)
        case TrajectoriesStage():
            read_trajectories(stage, directory)
        case PairsStage():
            make_pairs(stage, recipe, directory)
        case ContrastStage():
            score.contrast(stage, recipe, directory)
        case LogRatioStage():
            score.log_ratio(stage, recipe, directory)
        case ReferenceStage():
            score.reference(stage, recipe, directory)
        case _:
            tune(stage, recipe, directory)


def _depends(
    stage: Stage, recipe: Recipe, places: Mapping[str, StageDirectory]
) -> dict[str, YamlValue]:
    """Everything that a stage's output depends on.

    That is its settings, the hashes of the outputs that it reads, and the contents of files.
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
    """Every string in a value of settings."""
    match value:
        case str():
            yield value
        case dict():
            yield from (text for item in value.values() for text in _texts(item))
        case list():
            yield from (text for item in value for text in _texts(item))


def _is_local(text: str) -> bool:
    """True if a setting names a file or directory on this disk."""
    return (
        ("/" in text or "." in text)
        and len(text) < 4096
        and "\n" not in text
        and Path(text).exists()
    )


def _facts(path: Path) -> list[YamlValue]:
    """Name, size and content (or time) of a file, or of the files of a directory."""
    files = [path] if path.is_file() else sorted(file for file in path.iterdir() if file.is_file())
    return [[file.name, file.stat().st_size, _content(file)] for file in files]


def _content(file: Path) -> str | int:
    if file.stat().st_size > WHOLE_BYTES:
        return file.stat().st_mtime_ns
    return hashlib.sha256(file.read_bytes()).hexdigest()


def substituted(
    settings: Mapping[str, YamlValue], place: Callable[[str], str]
) -> dict[str, YamlValue]:
    """Replace each reference in settings by its `place`."""
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
    """The recipe with references replaced by paths, and without stages."""
    content = {key: value for key, value in as_mapping(recipe).items() if key != "stages"}
    resolved = substituted(content, partial(_path, places))
    return build(Recipe, resolved, recipe.name, folder=folder_of(recipe))


def _mark(stage: Stage, directory: Path, depends: Mapping[str, YamlValue]) -> None:
    """Mark a stage as done: record what it depends on, and the size of each output file."""
    sizes = {
        str(file.relative_to(directory)): file.stat().st_size
        for file in sorted(_outputs(directory, OUTPUTS[stage.kind]))
    }
    text = json.dumps(
        {"kind": stage.kind, "depends": depends, "files": sizes}, indent=1, ensure_ascii=False
    )
    storage.replace_text(directory / MARK, text + "\n")


def _outputs(directory: Path, names: tuple[str, ...]) -> Iterator[Path]:
    for name in names:
        path = directory / name
        yield from (file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]


def is_made(directory: Path) -> bool:
    """True if a stage finished in this directory and its files still have their sizes."""
    mark = directory / MARK
    if not mark.exists():
        return False
    files: dict[str, int] = json.loads(mark.read_text(encoding="utf-8"))["files"]
    return all(
        (directory / name).is_file() and (directory / name).stat().st_size == size
        for name, size in files.items()
    )
