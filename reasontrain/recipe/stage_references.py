"""References to earlier stages: `stage:NAME/FILE` stands for a file that a stage writes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

from reasontrain.recipe.settings import Recipe
from reasontrain.recipe.stages import SampleStage

SCHEME = "stage:"
OUTPUTS: Mapping[str, tuple[str, ...]] = {
    "sample": ("rollouts.jsonl",),
    "trajectories": ("rollouts.jsonl",),
    "pairs": ("pairs.jsonl", "positive.jsonl", "negative.jsonl"),
    "tune": ("final",),
    "contrast": ("ce_logscore.parquet",),
    "log_ratio": ("log_ratio.parquet",),
    "reference": ("ref_logp.parquet",),
}
"""The files that each kind of stage writes."""


def split(reference: str) -> tuple[str, str]:
    """The names of the stage and of the file in a reference."""
    name, _, file = reference.removeprefix(SCHEME).partition("/")
    return name, file


def references(value: object) -> Iterator[str]:
    """Every reference in a value of settings, at any depth."""
    match value:
        case str() if value.startswith(SCHEME):
            yield value
        case dict():
            for item in value.values():
                yield from references(item)
        case list() | tuple():
            for item in value:
                yield from references(item)


def reference_errors(recipe: Recipe) -> Iterator[str]:
    """Stages that cannot run, and references to files that no earlier stage writes."""
    known: dict[str, str] = {}
    for stage in recipe.stages:
        for error in _unknown(dataclasses.asdict(stage), known):
            yield f"stages.{stage.name}: {error}"
        capabilities = stage.sample.engine.capabilities if isinstance(stage, SampleStage) else None
        if capabilities is not None and not capabilities.shares_policy:
            yield (
                f"stages.{stage.name}: a stage samples in this process, which "
                f"{capabilities.label} does not support; use `engine: {{kind: local}}`, or sample "
                "with another tool and read its file with a stage of kind trajectories"
            )
        if stage.name in known:
            yield f"stages: two stages are named {stage.name!r}"
        known[stage.name] = stage.kind
    rest = {key: value for key, value in dataclasses.asdict(recipe).items() if key != "stages"}
    for error in _unknown(rest, known):
        yield f"stages: {error}"


def _unknown(value: object, known: Mapping[str, str]) -> Iterator[str]:
    """Errors of references to an unknown stage, or to a file that the stage does not write."""
    for reference in references(value):
        name, file = split(reference)
        if name not in known:
            earlier = ", ".join(known) or "none"
            yield f"{reference} names no earlier stage; the earlier stages are {earlier}"
        elif file not in OUTPUTS[known[name]]:
            yield (
                f"{reference}: a stage of kind {known[name]} writes "
                f"{', '.join(OUTPUTS[known[name]])}"
            )
