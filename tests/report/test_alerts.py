"""Alerts: raised by what they are about, and by nothing else."""

from __future__ import annotations

import math
import random

import pytest

from reasontrain.metrics.accuracy import Interval
from reasontrain.report.alerts import alerts
from reasontrain.report.run import EvaluationRecord, RunRecord

STEPS = 40


def run_of(**columns: list[float]) -> RunRecord:
    """A run with these metrics, one value per step."""
    steps = max(map(len, columns.values()))
    return RunRecord(
        name="r",
        steps=tuple(
            {"step": step + 1, **{name: values[step] for name, values in columns.items()}}
            for step in range(steps)
        ),
    )


def line(first: float, last: float, noise: float = 0.02, steps: int = STEPS) -> list[float]:
    """A metric that moves from one value to another, with relative noise."""
    rng = random.Random(f"{first} {last}")
    done = [step / (steps - 1) for step in range(steps)]
    return [(first + (last - first) * at) * (1 + noise * rng.uniform(-1, 1)) for at in done]


def kinds(run: RunRecord) -> list[str]:
    return [alert.kind for alert in alerts(run)]


@pytest.mark.parametrize(
    ("kind", "bad", "good"),
    [
        ("length", {"response_tokens_mean": (100, 300)}, {"response_tokens_mean": (100, 120)}),
        ("truncation", {"truncated_share": (0.1, 0.6)}, {"truncated_share": (0.6, 0.1)}),
        ("entropy", {"entropy_mean": (1.0, 0.05)}, {"entropy_mean": (1.0, 0.7)}),
        (
            "reward",
            {"reward_zero_std_share": (0.3, 0.99)},
            {"reward_zero_std_share": (0.3, 0.5)},
        ),
    ],
)
def test_a_change_raises_its_alert_and_no_other(kind, bad, good):
    assert kinds(run_of(**{name: line(*ends) for name, ends in bad.items()})) == [kind]
    assert kinds(run_of(**{name: line(*ends) for name, ends in good.items()})) == []


def test_longer_responses_that_earn_reward_raise_none():
    longer = line(100, 300)
    assert kinds(run_of(response_tokens_mean=longer, reward_mean=line(0.2, 0.21, 0.3))) == [
        "length"
    ]
    assert kinds(run_of(response_tokens_mean=longer, reward_mean=line(0.2, 0.6))) == []


def test_a_change_within_the_noise_raises_none():
    rng = random.Random(0)
    noisy = [100 * math.exp(rng.gauss(0, 1.5)) for _ in range(STEPS)]
    assert kinds(run_of(response_tokens_mean=sorted(noisy[:8]) + noisy[8:])) == []


def test_a_short_run_has_no_trend():
    steps = 19
    assert kinds(run_of(entropy_mean=line(1.0, 0.01, steps=steps))) == []
    assert kinds(run_of(entropy_mean=line(1.0, 0.01, steps=steps + 1))) == ["entropy"]


def test_speed_is_per_sampled_token_and_spares_the_first_step():
    seconds = line(1.0, 3.0)
    assert kinds(run_of(time_step_s=seconds, sampled_tokens=line(100, 300))) == []
    assert kinds(run_of(time_step_s=seconds, sampled_tokens=[100.0] * STEPS)) == ["speed"]
    compiled = [500.0, *line(1.0, 1.0, steps=STEPS - 1)]
    assert kinds(run_of(time_step_s=compiled, sampled_tokens=[100.0] * STEPS)) == []


def test_accuracy_falls_only_beyond_its_interval():
    def evaluated(step: int, value: float, half: float = 0.03) -> EvaluationRecord:
        return EvaluationRecord(
            step=step,
            suite="gsm8k",
            num_problems=100,
            num_samples=1,
            temperature=0.0,
            metrics={"accuracy": Interval(value, value - half, value + half)},
        )

    def said(*values: float) -> list[str]:
        run = RunRecord(name="r", evaluations=tuple(map(evaluated, (0, 4, 8), values)))
        return [alert.text for alert in alerts(run)]

    (text,) = said(0.32, 0.5, 0.02)
    assert text.startswith(
        "gsm8k: accuracy fell from 32.0\u202f% after 0 steps to 2.0\u202f% after 8"
    )
    assert said(0.32, 0.1, 0.31) == []
    assert said(0.02, 0.1, 0.31) == []
    assert alerts(RunRecord(name="r", evaluations=(evaluated(0, 0.5),))) == []
