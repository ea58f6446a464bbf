"""The rows: run directories that `train` wrote and reports that `evaluate` wrote, read into one
kind of record.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import yaml

from reasontrain.data.storage import TornLineError, json_lines
from reasontrain.evaluation.compare import arm_of
from reasontrain.leaderboard.answers import Verdicts, verdicts
from reasontrain.leaderboard.fingerprint import Protocol, protocol
from reasontrain.report.numbers import Json
from reasontrain.report.run import (
    EvaluationRecord,
    read_evaluation,
    read_run,
)
from reasontrain.run.directory import EvaluationDirectory, RunDirectory
from reasontrain.types import UserError


@dataclass(frozen=True, kw_only=True)
class Result:
    """One suite asked of one model, `asked` as its settings say; `answers` and `verdicts` are None
    where they were not kept.
    """

    evaluation: EvaluationRecord
    asked: Mapping[str, Json]
    protocol: Protocol
    answers: Path | None
    verdicts: Verdicts | None


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A model: what a run reached at its last evaluation, or what a report states.

    `slug` names its files, `about` says in few words what it is, `course` holds every evaluation on
    the way. Rows of one `arm` differ by nothing but their seed.
    """

    name: str
    slug: str
    arm: str
    about: str
    results: tuple[Result, ...]
    course: tuple[EvaluationRecord, ...] = ()
    recipe: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)


def read_entries(paths: Sequence[Path]) -> tuple[Entry, ...]:
    """All rows, each with a name of its own; an error where one is given twice."""
    places = [path.resolve() for path in paths]
    if twice := [
        str(path) for path, place in zip(paths, places, strict=True) if places.count(place) > 1
    ]:
        raise UserError(f"{twice[0]} is given twice; a row counts once")
    return _named_apart([_read(path) for path in paths], paths)


def _read(path: Path) -> Entry:
    """A run directory, the folder of a report, or the report itself."""
    if path.is_file() and path == EvaluationDirectory(path.parent).report:
        path = path.parent
    run, evaluated = RunDirectory(path), EvaluationDirectory(path)
    if run.evaluations.is_file():
        return _run(run)
    if evaluated.report.is_file() and not run.recipe.is_file():
        return _report(evaluated.report)
    raise UserError(
        f"{path} holds no evaluation; expected a run directory with {run.evaluations.name}, or a "
        f"folder with the {evaluated.report.name} that `reasontrain evaluate` writes"
    )


def _run(directory: RunDirectory) -> Entry:
    """A run at the last evaluation of each suite."""
    run, asked = read_run(directory.path), _suites_of(directory.recipe)
    last: dict[str, tuple[EvaluationRecord, Mapping[str, Json]]] = {}
    course: dict[tuple[str, int], EvaluationRecord] = {}
    for record, where in _lines(directory.evaluations):
        found = read_evaluation(record, where)
        course[found.suite, found.step] = found
        if found.suite not in last or found.step >= last[found.suite][0].step:
            last[found.suite] = (found, record)
    results = (
        _result(e, record, asked.get(e.suite, {}), directory.answers(e.suite, e.step))
        for e, record in last.values()
    )
    settings = yaml.safe_load(run.recipe) or {}
    return Entry(
        name=run.name,
        slug=_slug(run.name),
        arm=arm_of(settings) if settings else _slug(run.name),
        about=_about(settings, max((e.step for e, _ in last.values()), default=0)),
        results=tuple(results),
        course=tuple(sorted(course.values(), key=lambda e: e.step)),
        recipe=run.recipe,
        environment=run.environment,
    )


def _report(path: Path) -> Entry:
    """What `reasontrain evaluate` measured of one model."""
    report = _mapping(_json(path), f"{path}: expected a report")
    suites = report.get("suites")
    if not isinstance(suites, list) or "model" not in report:
        raise UserError(
            f'{path}: expected a report of `reasontrain evaluate` with "model" and '
            f'"suites", found {sorted(report)}'
        )
    results: dict[str, Result] = {}
    for index, suite in enumerate(suites):
        where = f"{path}: suite {index + 1}"
        record = _mapping(suite, where)
        found = read_evaluation({"step": 0, **record}, where)
        if found.suite in results:
            raise UserError(
                f"{path} states suite {found.suite} twice; evaluate them into folders of "
                f"their own (--out)"
            )
        asked = record.get("asked")
        settings = asked if isinstance(asked, Mapping) else {}
        results[found.suite] = _result(
            found, record, settings, path.parent / f"{found.suite}.jsonl"
        )
    name = str(report["model"])
    environment = {
        key: str(value)
        for key, value in report.items()
        if key != "suites" and not isinstance(value, dict | list)
    }
    slug = _slug(name)
    return Entry(
        name=name,
        slug=slug,
        arm=slug,
        about="evaluated",
        results=tuple(results.values()),
        environment=environment,
    )


def _named_apart(entries: Sequence[Entry], paths: Sequence[Path]) -> tuple[Entry, ...]:
    """The same rows; where two have one name (or one slug) each is called by its path too."""
    slugs = [entry.slug for entry in entries]
    return tuple(
        entry
        if slugs.count(entry.slug) == 1
        else replace(entry, name=f"{entry.name} ({path})", slug=f"{entry.slug}-{number}")
        for number, (entry, path) in enumerate(zip(entries, paths, strict=True), 1)
    )


def _suites_of(recipe: Path) -> dict[str, Mapping[str, Json]]:
    """The suites of a resolved recipe by name, each with the prompt that it was asked with."""
    settings = yaml.safe_load(recipe.read_text(encoding="utf-8")) if recipe.is_file() else {}
    evaluate = settings.get("evaluate") or {}
    return {
        suite["name"]: {**suite, "prompt": suite.get("prompt") or settings.get("prompt")}
        for suite in evaluate.get("suites", ())
    }


def _lines(path: Path) -> list[tuple[Mapping[str, Json], str]]:
    """The lines of a file; one that is being written at this moment is left out."""
    lines = []
    try:
        for line in json_lines(path):
            lines.append(line)
    except TornLineError:
        pass
    return lines


def _json(path: Path) -> Json:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: expected JSON ({error.msg}, line {error.lineno})") from error


def _mapping(value: Json, where: str) -> Mapping[str, Json]:
    if not isinstance(value, Mapping):
        raise UserError(f"{where}: expected a JSON object, found {type(value).__name__}")
    return value


def _result(
    evaluation: EvaluationRecord,
    record: Mapping[str, Json],
    asked: Mapping[str, Json],
    answers: Path,
) -> Result:
    """A result with its answers, where they are there."""
    kept = answers if answers.is_file() else None
    stated = protocol(record, asked)
    return Result(
        evaluation=evaluation,
        asked=asked,
        protocol=stated,
        answers=kept,
        verdicts=verdicts(kept) if kept else None,
    )


def _about(recipe: Mapping[str, Json], step: int) -> str:
    """What was trained, by which rule and objective, and how far."""
    model, token_selection, objective = (
        recipe.get(name) for name in ("model", "token_selection", "objective")
    )
    parts = [
        part.get(key)
        for part, key in ((model, "path"), (token_selection, "kind"), (objective, "kind"))
        if isinstance(part, Mapping)
    ]
    planned = recipe.get("steps", step)
    reached = f"step {step}" if planned == step else f"step {step} of {planned}"
    seed = [f"seed {recipe['seed']}"] if "seed" in recipe else []
    return ", ".join([*(str(part) for part in parts if part), reached, *seed])


def _slug(name: str) -> str:
    """A name as a file's: `Qwen/Qwen3-8B` becomes `Qwen-Qwen3-8B`."""
    return re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII).strip("-.") or "model"
