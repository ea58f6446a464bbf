"""`stage:NAME/FILE` in a recipe: what an earlier stage wrote."""

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
    "reference": ("ref_logp.parquet",),
}
"""What each kind of stage writes."""


def split(reference: str) -> tuple[str, str]:
    """The stage and the file that are meant."""
    name, _, file = reference.removeprefix(SCHEME).partition("/")
    return name, file


def references(value: object) -> Iterator[str]:
    """Every reference in a value of settings."""
    match value:
        case str() if value.startswith(SCHEME):
            yield value
        case dict():
            for item in value.values():
                yield from references(item)
        case list() | tuple():
            for item in value:
                yield from references(item)


def faults(recipe: Recipe) -> list[str]:
    """References to what no earlier stage writes, and stages of one name."""
    found, known = [], dict[str, str]()
    for stage in recipe.stages:
        found += [
            f"stages.{stage.name}: {fault}" for fault in _unknown(dataclasses.asdict(stage), known)
        ]
        capabilities = stage.sample.engine.capabilities if isinstance(stage, SampleStage) else None
        if capabilities is not None and not capabilities.shares_policy:
            found.append(
                f"stages.{stage.name}: a stage samples in this process, which "
                f"{capabilities.label} does not support; use `engine: {{kind: local}}`, or sample "
                "with another tool and read its file with a stage of kind trajectories"
            )
        if stage.name in known:
            found.append(f"stages: two stages are called {stage.name!r}")
        known[stage.name] = stage.kind
    rest = {key: value for key, value in dataclasses.asdict(recipe).items() if key != "stages"}
    return found + [f"stages: {fault}" for fault in _unknown(rest, known)]


def _unknown(value: object, known: Mapping[str, str]) -> Iterator[str]:
    for reference in references(value):
        name, file = split(reference)
        if name not in known:
            yield f"{reference} is of no stage before it (there is: {', '.join(known) or 'none'})"
        elif file not in OUTPUTS[known[name]]:
            yield (
                f"{reference}: a stage of kind {known[name]} writes "
                f"{', '.join(OUTPUTS[known[name]])}"
            )
