"""Rows of the board, read from run directories of `train` and reports of `evaluate`."""

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
from reasontrain.leaderboard.fingerprint import Fingerprint, fingerprint
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
    """The evaluation of one model on one suite, with the settings of the suite.

    `answers` and `verdicts` are None if there is no file of answers.
    """

    evaluation: EvaluationRecord
    suite_settings: Mapping[str, Json]
    fingerprint: Fingerprint
    answers: Path | None
    verdicts: Verdicts | None


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A row: a run at its last evaluation, or the model of a report.

    `slug` is the stem of its files, `about` a short description, and `history` has every evaluation
    during training. Rows of one `arm` differ only in their seed. `pages` are other pages of a run
    that exist, by name.
    """

    name: str
    slug: str
    arm: str
    about: str
    results: tuple[Result, ...]
    history: tuple[EvaluationRecord, ...] = ()
    recipe: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    pages: Mapping[str, Path] = field(default_factory=dict)


def read_entries(paths: Sequence[Path]) -> tuple[Entry, ...]:
    """Read all rows, with unique names; raise UserError if a path occurs twice."""
    places = [path.resolve() for path in paths]
    if twice := [
        str(path) for path, place in zip(paths, places, strict=True) if places.count(place) > 1
    ]:
        raise UserError(f"{twice[0]} is given twice; give each run or report once")
    return _with_unique_names([_read(path) for path in paths], paths)


def _read(path: Path) -> Entry:
    """Read a run directory, the folder of a report, or the report itself."""
    if path.is_file() and path == EvaluationDirectory(path.parent).report:
        path = path.parent
    run = RunDirectory(path)
    evaluated = EvaluationDirectory(path)
    if run.evaluations.is_file():
        return _run(run)
    if evaluated.report.is_file() and not run.recipe.is_file():
        return _report(evaluated.report)
    raise UserError(
        f"{path} holds no evaluation; expected a run directory with {run.evaluations.name}, or a "
        f"folder with the {evaluated.report.name} that `reasontrain evaluate` writes"
    )


def _run(directory: RunDirectory) -> Entry:
    """The row of a run, with the last evaluation of each suite."""
    run = read_run(directory.path)
    suites = _suites_of(directory.recipe)
    last: dict[str, tuple[EvaluationRecord, Mapping[str, Json]]] = {}
    history: dict[tuple[str, int], EvaluationRecord] = {}
    for record, where in _lines(directory.evaluations):
        evaluation = read_evaluation(record, where)
        history[evaluation.suite, evaluation.step] = evaluation
        if evaluation.suite not in last or evaluation.step >= last[evaluation.suite][0].step:
            last[evaluation.suite] = (evaluation, record)
    results = (
        _result(
            e,
            record,
            suites.get(e.suite, {}),
            directory.answers(e.suite, e.step),
        )
        for e, record in last.values()
    )
    settings = yaml.safe_load(run.recipe) or {}
    return Entry(
        name=run.name,
        slug=_slug(run.name),
        arm=arm_of(settings) if settings else _slug(run.name),
        about=_about(settings, max((e.step for e, _ in last.values()), default=0)),
        results=tuple(results),
        history=tuple(sorted(history.values(), key=lambda e: e.step)),
        recipe=run.recipe,
        environment=run.environment,
        pages={
            name: page
            for name, page in (("report", directory.report_page), ("lens", directory.lens_page))
            if page.is_file()
        },
    )


def _report(path: Path) -> Entry:
    """The row of a report of `reasontrain evaluate`."""
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
        evaluation = read_evaluation({"step": 0, **record}, where)
        if evaluation.suite in results:
            raise UserError(
                f"{path} states suite {evaluation.suite} twice; evaluate them into separate "
                f"folders (--out)"
            )
        stated = record.get("asked")
        settings = stated if isinstance(stated, Mapping) else {}
        results[evaluation.suite] = _result(
            evaluation, record, settings, path.parent / f"{evaluation.suite}.jsonl"
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


def _with_unique_names(entries: Sequence[Entry], paths: Sequence[Path]) -> tuple[Entry, ...]:
    """Make slugs unique: rows that share one get their path and a number added to their names."""
    slugs = [entry.slug for entry in entries]
    return tuple(
        entry
        if slugs.count(entry.slug) == 1
        else replace(entry, name=f"{entry.name} ({path})", slug=f"{entry.slug}-{number}")
        for number, (entry, path) in enumerate(zip(entries, paths, strict=True), 1)
    )


def _suites_of(recipe: Path) -> dict[str, Mapping[str, Json]]:
    """The suites of a resolved recipe by name, each with its effective prompt settings."""
    settings = yaml.safe_load(recipe.read_text(encoding="utf-8")) if recipe.is_file() else {}
    evaluate = settings.get("evaluate") or {}
    return {
        suite["name"]: {**suite, "prompt": suite.get("prompt") or settings.get("prompt")}
        for suite in evaluate.get("suites", ())
    }


def _lines(path: Path) -> list[tuple[Mapping[str, Json], str]]:
    """The complete lines of a file; a last line that is still being written is left out."""
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
    suite_settings: Mapping[str, Json],
    answers: Path,
) -> Result:
    """A result, with its answers if their file exists."""
    kept = answers if answers.is_file() else None
    return Result(
        evaluation=evaluation,
        suite_settings=suite_settings,
        fingerprint=fingerprint(record, suite_settings),
        answers=kept,
        verdicts=verdicts(kept) if kept else None,
    )


def _about(recipe: Mapping[str, Json], step: int) -> str:
    """Model, token selection and objective of a run, the step it reached, and its seed."""
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
    """Convert a name to a part of a file name: `Qwen/Qwen3-8B` becomes `Qwen-Qwen3-8B`."""
    return re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII).strip("-.") or "model"
