"""`reasontrain evaluate`: models by suites, every answer kept with its verdict."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from reasontrain import models, track
from reasontrain.assemble import VERSIONS
from reasontrain.cli.terminal import progress
from reasontrain.data.prompts import PromptSettings
from reasontrain.evaluation.run import Evaluation, summary, write_answers
from reasontrain.evaluation.run import evaluate as ask
from reasontrain.evaluation.suites import suite as find
from reasontrain.models import DType, ModelSettings
from reasontrain.recipe import Suite, as_mapping
from reasontrain.sampler.local import LocalSampler
from reasontrain.sources import prepare
from reasontrain.tasks import Grader
from reasontrain.types import UserError

DATA_VARIABLE = "REASONTRAIN_DATA"


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line said."""

    models: Sequence[str]
    suites: Sequence[str]
    overrides: Sequence[str]
    data: Path | None
    prompt: str | None
    out: Path
    limit: int | None
    dtype: DType
    seed: int


def evaluate(options: Options) -> None:
    """Score every model on every suite; all suites are found before the first question is asked."""
    models.quiet_libraries()
    if options.limit is not None and options.limit < 1:
        raise UserError(f"--limit must be at least 1, got {options.limit}")
    data = options.data or (Path(os.environ[DATA_VARIABLE]) if DATA_VARIABLE in os.environ else None)
    if data is not None and not data.is_dir():
        raise UserError(f"{data} is no folder; --data and {DATA_VARIABLE} name the folder that holds the suites' files")
    if options.out.exists() and not options.out.is_dir():
        raise UserError(f"{options.out} is no folder; --out names the folder that reports are written to")
    suites = [find(name, options.overrides, data, options.prompt) for name in options.suites]
    suites = [replace(suite, limit=options.limit or suite.limit) for suite in suites]
    with Grader() as grader:
        for model in options.models:
            _evaluate(model, suites, options, grader)


def _evaluate(model: str, suites: Sequence[Suite], options: Options, grader: Grader) -> None:
    """One model on all suites, and its report."""
    settings = ModelSettings(path=model, dtype=options.dtype)
    policy = models.load(settings)
    sampler = LocalSampler(policy, seed=options.seed)
    folder = options.out / model.strip("/.").replace("/", "--").replace(":", "-")
    results = []
    for suite in suites:
        assert suite.task is not None, "a suite from a file has a task"
        with progress(suite.name, 0) as (_, say):
            asked = prepare(suite, suite.task, suite.prompt or PromptSettings(), policy, grader, say)
        with progress(suite.name, len(asked.prompts)) as (advance, say):
            result = ask(
                suite,
                asked.prompts,
                sampler=sampler,
                score=asked.score,
                dropped=asked.dropped,
                sha256=asked.sha256,
                at_once=64,
                progress=partial(advance, note=""),
            )
            say(f"{model} on {summary(result)}")
        write_answers(folder / f"{suite.name}.jsonl", result)
        results.append((suite, result))
    _write_report(folder / "report.json", settings, results, options.seed)
    print(f"report: {folder / 'report.json'}")


def _write_report(path: Path, model: ModelSettings, results: Sequence[tuple[Suite, Evaluation]], seed: int) -> None:
    """Each suite as it was asked, with what it measured, and what measured it: weights, precision, seed, versions."""
    suites = [{"asked": as_mapping(suite), **result.record()} for suite, result in results]
    report = {
        "model": model.path,
        "fingerprint": models.fingerprint(model),
        "dtype": model.dtype,
        "seed": seed,
        "versions": track.versions(VERSIONS),
        "suites": suites,
    }
    path.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
