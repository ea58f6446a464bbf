"""A run directory as it lies on disk, read into typed records.

Any part may be absent; what is there must make sense.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from reasontrain.data.storage import TornLineError, json_lines
from reasontrain.metrics.accuracy import Interval
from reasontrain.report.numbers import Json, Number, number
from reasontrain.run.directory import RunDirectory
from reasontrain.types import UserError


@dataclass(frozen=True, kw_only=True)
class EvaluationRecord:
    """One suite, scored after `step` steps; `numbers` are means beside the metrics (response
    tokens, truncated share).
    """

    step: int
    suite: str
    num_problems: int
    num_samples: int
    temperature: float
    metrics: Mapping[str, Interval]
    numbers: Mapping[str, Number] = field(default_factory=dict)

    @property
    def setting(self) -> tuple[str, int, float]:
        """What must be equal for two evaluations to be compared."""
        return (self.suite, self.num_samples, self.temperature)


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """What a run left behind.

    `steps` are in order, one per number; `token_files` by step; `notes` say what was unreadable.
    """

    name: str
    recipe: str = ""
    baseline: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    steps: tuple[Mapping[str, Number], ...] = ()
    evaluations: tuple[EvaluationRecord, ...] = ()
    token_files: Mapping[int, Path] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def series(self, name: str) -> list[tuple[int, Number]]:
        """(step, value) wherever a metric was written."""
        return [(int(row["step"]), row[name]) for row in self.steps if name in row]


def read_run(run_dir: Path) -> RunRecord:
    """Everything there is in `run_dir`; an error where the directory is missing or holds no run."""
    if not run_dir.is_dir():
        raise UserError(
            f"no run directory at {run_dir}; expected the folder that `reasontrain train` wrote"
        )
    directory = RunDirectory(run_dir)
    notes: list[str] = []
    steps = {
        int(_number(row, "step", where)): _numbers(row)
        for row, where in _lines(directory.metrics, notes)
    }
    evaluations = {
        (e.setting, e.step): e
        for e in (read_evaluation(*line) for line in _lines(directory.evaluations, notes))
    }
    recipe, environment = _text(directory.recipe), _environment(directory.environment)
    token_files = directory.token_files()
    if not (steps or evaluations or recipe or environment or token_files):
        parts = (
            directory.recipe,
            directory.environment,
            directory.metrics,
            directory.evaluations,
            directory.tokens,
        )
        raise UserError(
            f"{run_dir} holds no run: none of {', '.join(path.name for path in parts)} is there"
        )
    return RunRecord(
        name=_named(recipe, "name") or run_dir.resolve().name,
        recipe=recipe,
        baseline=_named(recipe, "baseline"),
        environment=environment,
        steps=tuple(
            steps[step] for step in sorted(steps)
        ),  # a resumed run writes a step again: the last time counts
        evaluations=tuple(sorted(evaluations.values(), key=lambda e: e.step)),
        token_files=token_files,
        notes=tuple(notes),
    )


def _lines(path: Path, notes: list[str]) -> Iterator[tuple[Mapping[str, Json], str]]:
    """The lines of a file that may be absent or torn at its end."""
    if not path.is_file():
        return
    try:
        yield from json_lines(path)
    except TornLineError as torn:
        notes.append(
            f"The last line of {path.name} was cut short and is left out ({Path(str(torn)).name})."
        )


def read_evaluation(row: Mapping[str, Json], where: str) -> EvaluationRecord:
    """One line of evaluations.jsonl, or what a report states of one suite."""
    metrics, suite = row.get("metrics"), row.get("suite")
    if not isinstance(metrics, Mapping) or not isinstance(suite, str):
        raise UserError(f'{where}: expected "suite" and "metrics", found {sorted(row)}')
    known = ("step", "num_problems", "num_samples", "temperature")
    step, num_problems, num_samples, temperature = (_number(row, name, where) for name in known)
    return EvaluationRecord(
        step=int(step),
        suite=suite,
        num_problems=int(num_problems),
        num_samples=int(num_samples),
        temperature=temperature,
        metrics={name: _interval(metric, f"{where}, {name}") for name, metric in metrics.items()},
        numbers={name: value for name, value in _numbers(row).items() if name not in known},
    )


def _interval(metric: Json, where: str) -> Interval:
    """{"value", "low", "high"}."""
    if not isinstance(metric, Mapping):
        raise UserError(f'{where}: expected {{"value", "low", "high"}}, found {metric!r}')
    return Interval(*(_number(metric, end, where) for end in ("value", "low", "high")))


def _number(row: Mapping[str, Json], name: str, where: str) -> float:
    """A number that must be there."""
    value = number(row.get(name))
    if value is None:
        raise UserError(f'{where}: expected a number "{name}", found {row.get(name)!r}')
    return value


def _numbers(row: Mapping[str, Json]) -> dict[str, Number]:
    """The entries of a line that are numbers."""
    found = ((name, number(value)) for name, value in row.items())
    return {name: value for name, value in found if value is not None}


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _environment(path: Path) -> dict[str, str]:
    """Nested keys joined by dots, values as text."""
    if not path.is_file():
        return {}
    try:
        return dict(_flat(json.loads(_text(path)), ()))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: expected JSON ({error.msg}, line {error.lineno})") from error


def _flat(value: Json, path: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, part in value.items():
            yield from _flat(part, (*path, str(name)))
    else:
        yield ".".join(path), ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _named(recipe: str, key: str) -> str:
    """A name that the recipe gives, if it can be read."""
    try:
        settings = yaml.safe_load(recipe)
    except yaml.YAMLError:
        return ""
    return str(settings.get(key) or "") if isinstance(settings, dict) else ""
