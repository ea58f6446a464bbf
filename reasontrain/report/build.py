"""Build the report: read a run directory, and write report.json and report.html into it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from reasontrain.algo.evidence import EVIDENCE, Evidence
from reasontrain.data import storage
from reasontrain.metrics.rewards import ZERO_STD
from reasontrain.report import charts, colours, numbers, templates
from reasontrain.report.alerts import Alert, alerts
from reasontrain.report.baseline import BaselineComparison, compare
from reasontrain.report.charts import Axis, Chart, Series
from reasontrain.report.numbers import portable
from reasontrain.report.profile import profile
from reasontrain.report.run import EvaluationRecord, RunRecord, read_run
from reasontrain.report.summary import (
    Headline,
    QuadrantShare,
    headlines,
    measurements,
    quadrants,
    report,
    setting_text,
    training_s,
)
from reasontrain.report.tokens import TokenPage, show_tokens
from reasontrain.run.directory import RunDirectory

_TONES = "abcdef"
_FREE = Axis()
_SHARE = Axis(floor=0.0, ceiling=1.0, shares=True)


@dataclass(frozen=True, kw_only=True)
class _Curve:
    """A chart of metrics in metrics.jsonl: title, {metric: label}, and note."""

    title: str
    columns: dict[str, str]
    note: str
    axis: Axis = _FREE


_OUTCOMES = (
    _Curve(title="Loss", columns={"loss": "loss"}, note="The loss that the optimiser minimises."),
    _Curve(
        title="Reward",
        columns={"reward_mean": "reward"},
        note="Mean over the rollouts of a step.",
        axis=Axis(floor=0.0),
    ),
)
_TRAINING = (
    _Curve(
        title="Response length",
        columns={"response_tokens_mean": "response", "thought_tokens_mean": "thought"},
        note="Mean tokens of the rollouts of a step.",
        axis=Axis(floor=0.0),
    ),
    _Curve(
        title="Endings",
        columns={
            "truncated_share": "truncated",
            "unfinished_share": "unfinished thought",
            ZERO_STD: "groups with equal rewards",
        },
        note="Shares of rollouts, and of groups.",
        axis=_SHARE,
    ),
    _Curve(
        title="Sampler and learner",
        columns={"sampler_kl": "KL"},
        note="KL(sampler || learner) at the sampled tokens, in nats (k3).",
        axis=Axis(floor=0.0),
    ),
    _Curve(
        title="Clipped tokens",
        columns={"clipped": "clipped"},
        note="Share of tokens whose ratio the objective clipped.",
        axis=_SHARE,
    ),
    _Curve(
        title="Learning rate",
        columns={"lr": "rate"},
        note="At the end of a step.",
        axis=Axis(floor=0.0),
    ),
    _Curve(
        title="Kept tokens",
        columns={"kept_share": "kept"},
        note="Share of response tokens with a weight.",
        axis=_SHARE,
    ),
    _Curve(
        title="Rollouts",
        columns={
            "rollouts_kept_share": "kept",
            "useful_share": "useful",
            "useful_share_kept": "useful of the kept",
        },
        note="A rollout is useful if its advantage is not 0.",
        axis=_SHARE,
    ),
    _Curve(
        title="Variance of advantages",
        columns={"advantage_var": "sampled", "advantage_var_kept": "kept"},
        note="Before and after rollouts were dropped.",
        axis=Axis(floor=0.0),
    ),
    _Curve(
        title="Quadrants",
        columns={f"share_Q{i}": f"Q{i}" for i in (1, 2, 3, 4)},
        note="Share of response tokens.",
        axis=_SHARE,
    ),
    _Curve(
        title="Where the divergence is",
        columns={
            "share_of_kl_kept": "kept tokens",
            **{f"share_of_kl_Q{i}": f"Q{i}" for i in (1, 2, 3, 4)},
        },
        note="Share of the reverse KL of all response tokens.",
        axis=_SHARE,
    ),
    _Curve(
        title="Gradient norm",
        columns={"grad_norm": "norm"},
        note="Before clipping.",
        axis=Axis(floor=0.0),
    ),
    _Curve(
        title="Speed",
        columns={"tokens_per_s": "tokens/s"},
        note="Response tokens per second.",
        axis=Axis(floor=0.0),
    ),
    _Curve(
        title="Memory",
        columns={"memory_peak_gb": "GB"},
        note="Largest peak of a learner rank so far.",
        axis=Axis(floor=0.0),
    ),
)


def write_report(run_dir: Path) -> tuple[Path, Path]:
    """Write `report.html` and `report.json` into a run directory and return their paths.

    Parts for which the run has no files are left out of the page. Raises `UserError` if there is no
    run, or if one of its files cannot be read.
    """
    run = read_run(run_dir)
    comparison = compare(run, run_dir)
    reasons = alerts(run)
    content = report(run) | {
        "alerts": [asdict(alert) for alert in reasons],
        "baseline": portable(asdict(comparison)) if comparison else None,
    }
    numbers_text = json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    directory = RunDirectory(run_dir)
    page = directory.report_page
    summary = directory.report_numbers
    for path, text in ((page, render(run, reasons, comparison)), (summary, numbers_text)):
        storage.replace_text(path, text)
    return page, summary


def render(
    run: RunRecord, reasons: Sequence[Alert], comparison: BaselineComparison | None = None
) -> str:
    """Render the page, with its alerts, and with the comparison with a baseline if there is one."""
    script = templates.text(templates.PAGE / "tokens.js")
    return (
        templates.templates()
        .get_template("page.html.j2")
        .render(
            run=run,
            comparison=comparison,
            style=templates.text(templates.PAGE / "style.css"),
            light=colours.rules(colours.LIGHT),
            dark=colours.rules(colours.DARK),
            script=script,
            script_hash=templates.script_hash(script),
            size=charts,
            colours=colours,
            tones=_TONES,
            alerts=reasons,
            suites=_by_suite(headlines(run)),
            dumbbell=charts.dumbbell,
            curves=curves(run),
            quadrants=quadrants(run),
            bars=_bars(quadrants(run)),
            profile=profile(run),
            figures=_figures(run),
            measurements=measurements(run),
            token_pages=token_pages(run),
            lens=_lens(run),
            facts=_facts(run),
        )
    )


def curves(run: RunRecord) -> list[Chart]:
    """The chart of accuracy, then all other charts with a metric that the run recorded."""
    drawn = [_accuracy(run)]
    for curve in (*_OUTCOMES, *_evidence_curves(), *_custom_curves(run), *_TRAINING):
        tones = [
            name.rpartition("_")[2].lower() if "_Q" in name else _TONES[i]
            for i, name in enumerate(curve.columns)
        ]
        named = zip(curve.columns.items(), tones, strict=True)
        series = [
            Series(label=label, points=run.series(name), tone=tone)
            for (name, label), tone in named
            if run.series(name)
        ]
        drawn.append(charts.chart(curve.title, series, axis=curve.axis, note=curve.note))
    return [chart for chart in drawn if chart]


def _evidence_curves() -> list[_Curve]:
    """The charts of the evidence table: means over the response tokens of a step."""
    charts_of: dict[str, list[Evidence]] = {}
    for row in EVIDENCE.values():
        if row.source == "plugin":  # of a recipe that this process happened to read
            continue
        charts_of.setdefault(row.chart, []).append(row)
    return [
        _Curve(
            title=title,
            columns={f"{row.name}_mean": row.label for row in rows},
            note=f"Mean over response tokens, in {rows[0].unit}."
            if rows[0].unit == "nats"
            else "Mean over response tokens.",
            axis=_axis(rows[0]),
        )
        for title, rows in charts_of.items()
    ]


def _custom_curves(run: RunRecord) -> list[_Curve]:
    """A chart for each kind of evidence of a plug-in, whose code need not be there any more."""
    return [
        _Curve(title=name, columns={f"{name}_mean": name}, note="Mean over response tokens.")
        for name in run.custom_evidence
    ]


def _axis(row: Evidence) -> Axis:
    """An axis that includes the finite bounds of this evidence."""
    if row.unit in ("probability", "share"):
        return _SHARE
    low, high = (bound if math.isfinite(bound) else None for bound in row.bounds)
    return Axis(floor=low, ceiling=high)


def token_pages(run: RunRecord) -> list[TokenPage]:
    """Four rollouts of the last stored step, and two of the first."""
    steps = list(run.token_files)
    wanted = [(steps[-1], 4)] + [(steps[0], 2)] * (len(steps) > 1) if steps else []
    pages = [show_tokens(step, run.token_files[step], num) for step, num in wanted]
    return [page for page in pages if page]


def _lens(run: RunRecord) -> str | None:
    """The address of the lens from the report; None if it was not written."""
    if run.directory is None:
        return None
    page = RunDirectory(run.directory).lens_page
    return page.relative_to(run.directory).as_posix() if page.is_file() else None


def _accuracy(run: RunRecord) -> Chart | None:
    """Accuracy of every suite that was evaluated more than once, with intervals."""
    scored: dict[tuple[str, int, float], list[EvaluationRecord]] = {}
    for evaluation in run.evaluations:
        if "accuracy" in evaluation.metrics:
            scored.setdefault(evaluation.setting, []).append(evaluation)
    several = {setting: records for setting, records in scored.items() if len(records) > 1}
    suites = [setting[0] for setting in several]
    series = [
        Series(
            label=records[0].suite
            if suites.count(records[0].suite) == 1
            else f"{records[0].suite}, {setting_text(records[0])}",
            points=[(e.step, e.metrics["accuracy"].value) for e in records],
            intervals=[e.metrics["accuracy"] for e in records],
            tone=_TONES[i % len(_TONES)],
        )
        for i, records in enumerate(several.values())
    ]
    return charts.chart(
        "Accuracy",
        series,
        axis=Axis(floor=0.0, shares=True),
        note="Held-out suites, with 95 % intervals.",
    )


def _by_suite(all_headlines: Sequence[Headline]) -> list[list[Headline]]:
    """Headlines grouped by suite and setting."""
    groups: dict[tuple[str, str], list[Headline]] = {}
    for headline in all_headlines:
        groups.setdefault((headline.suite, headline.setting), []).append(headline)
    return list(groups.values())


def _bars(shares: Sequence[QuadrantShare]) -> list[tuple[str, list[tuple[str, float]]]]:
    """Shares of all tokens, and of kept tokens if recorded, as (quadrant, share) pairs."""
    rows = (
        ("all tokens", [(q.name, q.tokens) for q in shares]),
        ("kept tokens", [(q.name, q.of_kept) for q in shares]),
    )
    return [
        (label, parts) for label, parts in rows if all(math.isfinite(share) for _, share in parts)
    ]


def _figures(run: RunRecord) -> list[tuple[str, str]]:
    """Speed and utilisation of the profiled step, by name."""
    step = profile(run)
    if step is None:
        return []
    rate = step.matrix_tflops
    with_recomputation = step.hfu_update if step.hfu_update > step.mfu_update else math.nan
    figures = (
        ("median step", step.seconds, numbers.duration(step.seconds)),
        ("response tokens per second", step.sampled_per_s, numbers.short(step.sampled_per_s)),
        ("trained tokens per second", step.trained_per_s, numbers.short(step.trained_per_s)),
        ("utilisation of the update", step.mfu_update, numbers.percent(step.mfu_update)),
        ("including recomputation", with_recomputation, numbers.percent(with_recomputation)),
        ("utilisation of the step", step.mfu_step, numbers.percent(step.mfu_step)),
        ("measured matrix rate", rate, f"{numbers.short(1e12 * rate)}FLOP/s"),
    )
    return [(name, text) for name, value, text in figures if math.isfinite(value)]


def _facts(run: RunRecord) -> list[tuple[str, str]]:
    """The facts under the title, as (name, value) pairs."""
    facts = [("steps", f"{len(run.steps):,}")] if run.steps else []
    if seconds := training_s(run):
        facts.append(("training time", numbers.duration(seconds)))
    for name, label, show in (
        ("kept_share", "tokens kept", numbers.percent),
        ("tokens_per_s", "tokens per second", numbers.short),
    ):
        average = numbers.mean([value for _, value in run.series(name)])
        facts += [(label, show(average))] if math.isfinite(average) else []
    sampled, trained = (
        math.fsum(value for _, value in run.series(name))
        for name in ("sampled_tokens", "trained_tokens")
    )
    if trained < sampled:
        facts.append(
            ("tokens trained on", f"{numbers.short(trained)} of {numbers.short(sampled)} sampled")
        )
    if "seed" in run.environment:
        facts.append(("seed", run.environment["seed"]))
    return facts
