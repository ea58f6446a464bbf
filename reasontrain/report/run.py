"""Read a run directory into typed records.

Any file may be missing; existing files must be valid.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from reasontrain.data.storage import TornLineError, json_lines
from reasontrain.evaluation.compare import paired_accuracy, sampling_of
from reasontrain.metrics.accuracy import Interval
from reasontrain.report.numbers import Json, Number, number
from reasontrain.run.directory import RunDirectory
from reasontrain.types import UserError

_OUTCOMES = {"truncated": "cut", "unfinished": "unfinished thoughts", "no_answer": "no answer"}
"""Numbers of responses in an evaluation -> words for a table."""


@dataclass(frozen=True, kw_only=True)
class EvaluationRecord:
    """The evaluation on one suite after `step` steps.

    `numbers` are other numbers (mean response tokens, number of truncated responses).
    """

    step: int
    suite: str
    num_problems: int
    num_samples: int
    temperature: float
    metrics: Mapping[str, Interval]
    numbers: Mapping[str, Number] = field(default_factory=dict)

    @property
    def outcomes(self) -> dict[str, int]:
        """The numbers of responses that were cut, or that have no answer, if recorded."""
        return {name: int(self.numbers[name]) for name in _OUTCOMES if name in self.numbers}

    @property
    def outcomes_text(self) -> str:
        """The outcomes that occurred, in words."""
        return ", ".join(f"{n} {_OUTCOMES[name]}" for name, n in self.outcomes.items() if n)

    @property
    def setting(self) -> tuple[str, int, float]:
        """The settings that comparable evaluations share."""
        return (self.suite, self.num_samples, self.temperature)


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """The files of a run.

    `steps` are in order, one per step number; `token_files` are by step; `notes` report unreadable
    lines; `directory` is None for a record that was not read from one.
    """

    name: str
    recipe: str = ""
    baseline: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    steps: tuple[Mapping[str, Number], ...] = ()
    evaluations: tuple[EvaluationRecord, ...] = ()
    token_files: Mapping[int, Path] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    directory: Path | None = None

    @property
    def custom_evidence(self) -> list[str]:
        """Names of the evidence that plug-ins computed, as the recipe has them."""
        named = _settings(self.recipe).get("evidence")
        sections = named.items() if isinstance(named, dict) else ()
        return [str(name) for name, section in sections if isinstance(section, dict)]

    def sampling_of(self, suite: str) -> Mapping[str, object]:
        """The settings of the answers to a suite; empty if they are unknown."""
        return sampling_of(_settings(self.recipe), suite)

    def series(self, name: str) -> list[tuple[int, Number]]:
        """(step, value) of a metric, for the steps that recorded it."""
        return [(int(row["step"]), row[name]) for row in self.steps if name in row]

    def paired_gain(self, after: EvaluationRecord, before: EvaluationRecord) -> Interval | None:
        """Accuracy of one evaluation minus that of an earlier one, paired by problem.

        None if the run does not hold the answers of both to the same problems.
        """
        if self.directory is None:
            return None
        directory = RunDirectory(self.directory)
        return paired_accuracy(
            directory.answers(after.suite, after.step), directory.answers(before.suite, before.step)
        )


def read_run(run_dir: Path) -> RunRecord:
    """Read the run in `run_dir`; raise UserError if the folder is missing or holds no run."""
    if not run_dir.is_dir():
        raise UserError(
            f"no run directory at {run_dir}; expected a folder that `reasontrain train` wrote"
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
    recipe = _text(directory.recipe)
    environment = _environment(directory.environment)
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
            f"{run_dir} holds no run: none of {', '.join(path.name for path in parts)} exists"
        )
    return RunRecord(
        name=_named(recipe, "name") or run_dir.resolve().name,
        recipe=recipe,
        baseline=_named(recipe, "baseline"),
        environment=environment,
        # a resumed run writes some steps again; the last line of a step counts
        steps=tuple(steps[step] for step in sorted(steps)),
        evaluations=tuple(sorted(evaluations.values(), key=lambda e: e.step)),
        token_files=token_files,
        notes=tuple(notes),
        directory=run_dir,
    )


def _lines(path: Path, notes: list[str]) -> Iterator[tuple[Mapping[str, Json], str]]:
    """The lines of a file that may be missing or have an incomplete last line."""
    if not path.is_file():
        return
    try:
        yield from json_lines(path)
    except TornLineError as torn:
        notes.append(
            f"The last line of {path.name} was cut short and is left out ({Path(str(torn)).name})."
        )


def read_evaluation(row: Mapping[str, Json], where: str) -> EvaluationRecord:
    """Read an evaluation from a line of evaluations.jsonl, or from a suite of a report."""
    metrics = row.get("metrics")
    suite = row.get("suite")
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
    """Read an interval from {"value", "low", "high"}."""
    if not isinstance(metric, Mapping):
        raise UserError(f'{where}: expected {{"value", "low", "high"}}, found {metric!r}')
    return Interval(*(_number(metric, end, where) for end in ("value", "low", "high")))


def _number(row: Mapping[str, Json], name: str, where: str) -> float:
    """Read a required number."""
    value = number(row.get(name))
    if value is None:
        raise UserError(f'{where}: expected a number "{name}", found {row.get(name)!r}')
    return value


def _numbers(row: Mapping[str, Json]) -> dict[str, Number]:
    """The entries of a line that are numbers."""
    entries = ((name, number(value)) for name, value in row.items())
    return {name: value for name, value in entries if value is not None}


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _environment(path: Path) -> dict[str, str]:
    """Read environment.json with nested keys joined by dots, and values as text."""
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
    """A text setting of the recipe; empty if it is missing or the recipe cannot be read."""
    return str(_settings(recipe).get(key) or "")


def _settings(recipe: str) -> Mapping[str, object]:
    """The settings of a recipe; none if it cannot be read."""
    try:
        settings = yaml.safe_load(recipe)
    except yaml.YAMLError:
        return {}
    return settings if isinstance(settings, dict) else {}
