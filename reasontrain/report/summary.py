"""Summary of a run: headlines, quadrants and measurements, and the content of report.json."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from reasontrain.metrics.accuracy import Interval, difference
from reasontrain.report.numbers import Json, Number, mean, portable
from reasontrain.report.profile import profile
from reasontrain.report.run import EvaluationRecord, RunRecord

QUADRANTS = {
    "Q1": "uncertain, and the teacher disagrees",
    "Q2": "uncertain, and the teacher agrees",
    "Q3": "confident, and the teacher disagrees",
    "Q4": "confident, and the teacher agrees",
}


@dataclass(frozen=True, kw_only=True)
class Headline:
    """One metric of one suite at the first and the last evaluation.

    `before` and `gain` are None if there was only one evaluation. `gain_paired` states that the
    interval of the gain is paired by problem, which needs the answers of both evaluations; other
    intervals treat the two evaluations as independent.
    """

    suite: str
    setting: str
    metric: str
    after: Interval
    after_step: int
    before: Interval | None = None
    before_step: int | None = None
    gain: Interval | None = None
    gain_paired: bool = False


@dataclass(frozen=True, kw_only=True)
class QuadrantShare:
    """Means over the steps for a quadrant.

    `tokens` is the quadrant's share of all tokens, `kept` the share of its tokens that are kept,
    and `of_kept` its share of all kept tokens.
    """

    name: str
    meaning: str
    tokens: float
    kept: float
    of_kept: float


def headlines(run: RunRecord) -> list[Headline]:
    """Every metric of every suite, accuracy first; suites in the order of first evaluation."""
    settings: dict[tuple[str, int, Number], list[EvaluationRecord]] = {}
    for evaluation in run.evaluations:
        settings.setdefault(evaluation.setting, []).append(evaluation)
    return [
        _headline(run, scored, metric)
        for scored in settings.values()
        for metric in sorted(scored[-1].metrics, key=metric_order)
    ]


def _headline(run: RunRecord, scored: list[EvaluationRecord], metric: str) -> Headline:
    first = scored[0]
    last = scored[-1]
    before = first.metrics.get(metric) if first is not last else None
    paired = run.paired_gain(last, first) if before and metric == "accuracy" else None
    return Headline(
        suite=last.suite,
        setting=setting_text(last),
        metric=metric,
        after=last.metrics[metric],
        after_step=last.step,
        before=before,
        before_step=first.step if before else None,
        gain=paired or (difference(last.metrics[metric], before) if before else None),
        gain_paired=paired is not None,
    )


def setting_text(evaluation: EvaluationRecord) -> str:
    """The settings of an evaluation, in words."""
    samples = (
        "one sample each"
        if evaluation.num_samples == 1
        else f"{evaluation.num_samples} samples each"
    )
    decoding = (
        "greedy" if evaluation.temperature == 0 else f"temperature {evaluation.temperature:g}"
    )
    return f"{evaluation.num_problems:,} problems, {samples}, {decoding}"


def quadrants(run: RunRecord) -> list[QuadrantShare]:
    """Shares per quadrant, over the steps that record all of them; empty if none does."""
    complete = [
        row
        for row in run.steps
        if all(math.isfinite(row.get(f"share_{q}", math.nan)) for q in QUADRANTS)
    ]
    if not complete:
        return []
    tokens = {q: mean([row[f"share_{q}"] for row in complete]) for q in QUADRANTS}
    kept_mass = {q: mean([_kept_mass(row, q) for row in complete]) for q in QUADRANTS}
    all_kept = math.fsum(kept_mass.values())
    return [
        QuadrantShare(
            name=q,
            meaning=meaning,
            tokens=tokens[q],
            kept=kept_mass[q] / tokens[q] if tokens[q] else math.nan,
            of_kept=kept_mass[q] / all_kept if all_kept else math.nan,
        )
        for q, meaning in QUADRANTS.items()
    ]


def _kept_mass(row: Mapping[str, Number], quadrant: str) -> float:
    """Kept tokens of a quadrant as a share of all tokens; zero for an empty quadrant."""
    return (
        row[f"share_{quadrant}"] * row.get(f"kept_{quadrant}", math.nan)
        if row[f"share_{quadrant}"]
        else 0.0
    )


def training_s(run: RunRecord) -> float:
    """Training time of all steps, in seconds."""
    return math.fsum(seconds for _, seconds in run.series("time_step_s") if math.isfinite(seconds))


def measurements(run: RunRecord) -> dict[str, dict[str, Number]]:
    """First, last, lowest, highest and mean of every metric; the latter three of finite values."""
    names = sorted({name for row in run.steps for name in row} - {"step"})
    columns = {name: [y for _, y in run.series(name)] for name in names}
    return {name: _measurement(values) for name, values in columns.items()}


def _measurement(values: list[Number]) -> dict[str, Number]:
    finite = [value for value in values if math.isfinite(value)] or [math.nan]
    return {
        "first": values[0],
        "last": values[-1],
        "low": min(finite),
        "high": max(finite),
        "mean": mean(values),
    }


def report(run: RunRecord) -> dict[str, Json]:
    """The content of report.json: plain JSON, without NaN."""
    content = {
        "name": run.name,
        "num_steps": len(run.steps),
        "last_step": int(run.steps[-1]["step"]) if run.steps else None,
        "headlines": [asdict(headline) for headline in headlines(run)],
        "evaluations": [asdict(evaluation) for evaluation in run.evaluations],
        "quadrants": [asdict(quadrant) for quadrant in quadrants(run)],
        "profile": asdict(timing) if (timing := profile(run)) else None,
        "metrics": measurements(run),
        "environment": dict(run.environment),
        "recipe": run.recipe,
        "notes": list(run.notes),
    }
    return {name: portable(part) for name, part in content.items()}


def metric_order(metric: str) -> tuple[int, int]:
    """Sort key of metrics: accuracy, pass@k, the rest; small k first."""
    name, _, k = metric.partition("@")
    order = ("accuracy", "pass")
    return (order.index(name) if name in order else len(order), int(k) if k.isdigit() else 0)
