"""A run beside its baseline: what both reached on the same problems, and what both cost."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from reasontrain.evaluation.compare import verdicts
from reasontrain.metrics.accuracy import Interval, paired_difference
from reasontrain.report.numbers import Number
from reasontrain.report.run import EvaluationRecord, RunRecord, read_run
from reasontrain.report.summary import setting_text, training_s
from reasontrain.run.directory import RunDirectory


@dataclass(frozen=True, kw_only=True)
class Score:
    """The accuracy of both on one suite after their last steps; the difference is paired over its
    problems.
    """

    suite: str
    setting: str
    baseline: Interval
    run: Interval
    difference: Interval


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What both spent in all."""

    what: str
    baseline: Number
    run: Number


@dataclass(frozen=True, kw_only=True)
class Beside:
    """Everything that is set beside each other; `missing` says why nothing is."""

    name: str
    scores: tuple[Score, ...] = ()
    costs: tuple[Cost, ...] = ()
    missing: str = ""


def beside(run: RunRecord, run_dir: Path) -> Beside | None:
    """The run beside the one that its recipe calls its `baseline`, which lies in the same folder;
    None where it names none.

    The interval of a difference covers 95 % over problems (10,000 draws); it does not speak of
    other training seeds.
    """
    if not run.baseline:
        return None
    other_dir = run_dir.resolve().parent / run.baseline
    if not other_dir.is_dir():
        return Beside(
            name=run.baseline, missing=f"There is no run {run.baseline} beside this one yet."
        )
    other = read_run(other_dir)
    scores = tuple(
        score for score in (_score(e, run_dir, other, other_dir) for e in _last(run)) if score
    )
    missing = (
        "" if scores else f"{run.baseline} was not asked the same problems after its last step."
    )
    return Beside(name=run.baseline, scores=scores, costs=_costs(run, other), missing=missing)


def _last(run: RunRecord) -> list[EvaluationRecord]:
    """The evaluations after the last step."""
    return [
        e for e in run.evaluations if e.step == run.evaluations[-1].step and "accuracy" in e.metrics
    ]


def _score(
    ours: EvaluationRecord, run_dir: Path, other: RunRecord, other_dir: Path
) -> Score | None:
    theirs = next((e for e in _last(other) if e.setting == ours.setting), None)
    paths = [] if theirs is None else [_answers(run_dir, ours), _answers(other_dir, theirs)]
    if theirs is None or not all(path.is_file() for path in paths):
        return None
    run, baseline = map(verdicts, paths)
    if run.keys() != baseline.keys():
        return None
    run_1M, baseline_1M = (
        np.array([[found[problem] for problem in run]], dtype=float) for found in (run, baseline)
    )
    return Score(
        suite=ours.suite,
        setting=setting_text(ours),
        baseline=theirs.metrics["accuracy"],
        run=ours.metrics["accuracy"],
        difference=paired_difference(run_1M, baseline_1M),
    )


def _answers(run_dir: Path, evaluation: EvaluationRecord) -> Path:
    return RunDirectory(run_dir).answers(evaluation.suite, evaluation.step)


def _costs(run: RunRecord, other: RunRecord) -> tuple[Cost, ...]:
    """Steps, tokens that met the loss, and training time."""
    amounts: dict[str, Callable[[RunRecord], Number]] = {
        "steps": lambda r: len(r.steps),
        "trained tokens": lambda r: math.fsum(value for _, value in r.series("trained_tokens")),
        "training time in seconds": training_s,
    }
    return tuple(
        Cost(what=what, baseline=amount(other), run=amount(run)) for what, amount in amounts.items()
    )
