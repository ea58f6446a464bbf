"""Comparison of a run with its baseline: accuracy on the same problems, and cost."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from reasontrain.evaluation.compare import differing, paired_accuracy
from reasontrain.metrics.accuracy import Interval
from reasontrain.report.numbers import Number
from reasontrain.report.run import EvaluationRecord, RunRecord, read_run
from reasontrain.report.summary import setting_text, training_s
from reasontrain.run.directory import RunDirectory


@dataclass(frozen=True, kw_only=True)
class Score:
    """Accuracy of both runs on a suite after the last step; the difference is paired by problem."""

    suite: str
    setting: str
    baseline: Interval
    run: Interval
    difference: Interval


@dataclass(frozen=True, kw_only=True)
class Cost:
    """A total cost of both runs."""

    name: str
    baseline: Number
    run: Number


@dataclass(frozen=True, kw_only=True)
class BaselineComparison:
    """Scores and costs of a run and its baseline; `missing` is the reason if there are none."""

    name: str
    scores: tuple[Score, ...] = ()
    costs: tuple[Cost, ...] = ()
    missing: str = ""


def compare(run: RunRecord, run_dir: Path) -> BaselineComparison | None:
    """Compare a run with the `baseline` of its recipe, a run in the same folder.

    Returns None if the recipe has no baseline.

    The interval of a difference covers 95 % over problems (10,000 draws), not the variation between
    training seeds.
    """
    if not run.baseline:
        return None
    other_dir = run_dir.resolve().parent / run.baseline
    if not other_dir.is_dir():
        return BaselineComparison(
            name=run.baseline,
            missing=f"The folder of this run has no run {run.baseline} yet.",
        )
    other = read_run(other_dir)
    scores = tuple(
        score
        for score in (
            _score(e, run_dir, other, other_dir)
            for e in _last(run)
            if differing(run.sampling_of(e.suite), other.sampling_of(e.suite)) is None
        )
        if score
    )
    missing = (
        ""
        if scores
        else f"{run.baseline} was not evaluated on the same problems, and in the same way, after "
        "its last step."
    )
    return BaselineComparison(
        name=run.baseline, scores=scores, costs=_costs(run, other), missing=missing
    )


def _last(run: RunRecord) -> list[EvaluationRecord]:
    """The evaluations after the last step."""
    return [
        e for e in run.evaluations if e.step == run.evaluations[-1].step and "accuracy" in e.metrics
    ]


def _score(
    evaluation: EvaluationRecord, run_dir: Path, other: RunRecord, other_dir: Path
) -> Score | None:
    """The score of an evaluation; None if the baseline has no answers to the same problems."""
    baseline_evaluation = next((e for e in _last(other) if e.setting == evaluation.setting), None)
    if baseline_evaluation is None:
        return None
    difference = paired_accuracy(
        _answers(run_dir, evaluation), _answers(other_dir, baseline_evaluation)
    )
    if difference is None:
        return None
    return Score(
        suite=evaluation.suite,
        setting=setting_text(evaluation),
        baseline=baseline_evaluation.metrics["accuracy"],
        run=evaluation.metrics["accuracy"],
        difference=difference,
    )


def _answers(run_dir: Path, evaluation: EvaluationRecord) -> Path:
    return RunDirectory(run_dir).answers(evaluation.suite, evaluation.step)


def _costs(run: RunRecord, other: RunRecord) -> tuple[Cost, ...]:
    """Costs: steps, tokens trained on, and training time."""
    amounts: dict[str, Callable[[RunRecord], Number]] = {
        "steps": lambda r: len(r.steps),
        "trained tokens": lambda r: math.fsum(value for _, value in r.series("trained_tokens")),
        "training time in seconds": training_s,
    }
    return tuple(
        Cost(name=name, baseline=amount(other), run=amount(run)) for name, amount in amounts.items()
    )
