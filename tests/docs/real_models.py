"""Tables of the runs on real models, from their records in `recipes/records/small`.

A record is what a run directory holds without weights, answers and rollouts: environment.json,
metrics.jsonl, evaluations.jsonl and report.json (which has the recipe), as the run wrote them.
`comparison.json` is the output of `reasontrain compare --json` on the run directories.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tests.test_architecture import ROOT

RECORDS = ROOT / "recipes/records/small"
ARMS = ("tip-small", "opd-small", "sft-small", "grpo-small")
"""The runs in the order of the tables; one without a record is left out."""
QUADRANTS = ("Q1", "Q2", "Q3", "Q4")
PHASES = {
    "sample": "sampling",
    "evidence_forward": "evidence",
    "frozen_forward": "teacher",
    "trunk_forward": "forward",
    "trunk_backward": "backward",
    "vocabulary": "vocabulary",
    "sync": "sync",
}
"""Timed parts of a step -> their columns; the rest of the step is one more column."""


def accuracy_table() -> str:
    """Held-out accuracy before and after training, with paired differences, cost and memory."""
    (comparison,) = json.loads((RECORDS / "comparison.json").read_text(encoding="utf-8"))
    arms = {arm["name"]: arm for arm in comparison["arms"]}
    rows = []
    for name in _recorded():
        arm = arms[name]
        steps = _steps(name)
        tokens = sum(row["sampled_tokens"] for row in steps)
        minutes = sum(row["time_step_s"] for row in steps) / 60
        rows.append(
            [
                f"`{name.removesuffix('-small')}`",
                f"{100 * arm['before']:.0f}",
                f"{100 * arm['after']:.0f}",
                _points(arm["gain"]),
                _points(arm["difference"]) if arm["difference"] else "",
                f"{tokens:,.0f}",
                f"{minutes:.0f}",
                f"{steps[-1]['memory_peak_gb']:.1f}",
            ]
        )
    baseline = comparison["baseline"]
    header = [
        "arm",
        "before, %",
        "after, %",
        "gain, points",
        f"difference from `{baseline.removesuffix('-small')}`, points",
        "tokens",
        "minutes of training",
        "peak memory, GB",
    ]
    return _table(header, rows)


def quadrants_table() -> str:
    """TIP's quadrants on real tokens: shares of tokens, of what is kept, and of the divergence."""
    steps = _steps("tip-small")
    rows = [
        [
            name,
            *(
                f"{100 * _mean(steps, f'{kind}_{name}'):.1f}"
                for kind in ("share", "kept", "share_of_kl")
            ),
        ]
        for name in QUADRANTS
    ]
    kept = [f"{100 * _mean(steps, key):.1f}" for key in ("kept_share", "share_of_kl_kept")]
    rows.append(["all kept", kept[0], "100.0", kept[1]])
    return _table(["quadrant", "of all tokens, %", "kept, %", "of the reverse KL, %"], rows)


def course_table() -> str:
    """Figures of each step: the divergence from the teacher, the loss, or the reward."""
    shown = {
        "tip-small": ("kl_reverse_mean", "reverse KL per token, nats"),
        "opd-small": ("divergence", "reverse KL per token, nats"),
        "sft-small": ("loss", "loss, nats"),
        "grpo-small": ("reward_mean", "mean reward"),
    }
    num_steps = len(_steps(_recorded()[0]))
    rows = []
    for name in _recorded():
        key, words = shown[name]
        values = [f"{row[key]:.3f}" for row in _steps(name)]
        rows.append([f"`{name.removesuffix('-small')}`", words, *values])
    return _table(["arm", "figure", *(str(step + 1) for step in range(num_steps))], rows)


def phases_table() -> str:
    """Mean seconds of a step by phase."""
    rows = []
    for name in _recorded():
        steps = _steps(name)
        seconds = [_mean(steps, f"time_{part}_s") for part in PHASES]
        total = _mean(steps, "time_step_s")
        rows.append(
            [
                f"`{name.removesuffix('-small')}`",
                *(f"{value:.0f}" for value in (*seconds, total - sum(seconds), total)),
            ]
        )
    return _table(["arm", *PHASES.values(), "rest", "step"], rows)


def tables() -> str:
    """All tables, each under a line that says what it shows."""
    parts = {
        "Accuracy on 100 problems, greedy, at most 512 tokens:": accuracy_table,
        "Step by step:": course_table,
        "TIP's tokens, means over the steps:": quadrants_table,
        "Mean seconds of a step:": phases_table,
    }
    return "\n\n".join(f"{words}\n\n{table()}" for words, table in parts.items())


def _recorded() -> list[str]:
    """The arms that have a record."""
    return [name for name in ARMS if (RECORDS / name).is_dir()]


def _steps(name: str) -> list[dict[str, float]]:
    """The metrics of each step of a recorded run."""
    lines = (RECORDS / name / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def _mean(steps: Sequence[Mapping[str, float]], key: str) -> float:
    """Mean of a metric over the steps; 0 for a part that the run does not have."""
    return sum(row.get(key, 0.0) for row in steps) / len(steps)


def _points(interval: Mapping[str, Any]) -> str:
    """A difference in percentage points with its interval."""
    value, low, high = (100 * interval[key] for key in ("value", "low", "high"))
    return f"{value:+.0f} [{low:+.0f}, {high:+.0f}]"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
