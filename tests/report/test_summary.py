"""The numbers of report.json, by hand."""

from __future__ import annotations

import math

import pytest

from reasontrain.metrics.accuracy import Interval, difference
from reasontrain.report.run import EvaluationRecord, RunRecord
from reasontrain.report.summary import headlines, measurements, quadrants


def scored(step: int, value: float, **changes: object) -> EvaluationRecord:
    metrics = {
        "pass@4": Interval(1.0, 1.0, 1.0),
        "accuracy": Interval(value, value - 0.1, value + 0.1),
    }
    return EvaluationRecord(
        **{
            "step": step,
            "suite": "s",
            "num_problems": 10,
            "num_samples": 4,
            "temperature": 1.0,
            "metrics": metrics,
            **changes,
        }
    )


def test_headline_compares_first_and_last_of_one_setting():
    run = RunRecord(
        name="r",
        evaluations=(
            scored(0, 0.2),
            scored(5, 0.3),
            scored(9, 0.4),
            scored(9, 0.9, temperature=0.0),
        ),
    )
    found = headlines(run)
    assert [(h.metric, h.setting) for h in found] == [
        ("accuracy", "10 problems, 4 samples each, temperature 1"),
        ("pass@4", "10 problems, 4 samples each, temperature 1"),
        ("accuracy", "10 problems, 4 samples each, greedy"),
        ("pass@4", "10 problems, 4 samples each, greedy"),
    ]
    assert (found[0].before_step, found[0].after_step) == (0, 9)
    assert found[0].gain == difference(Interval(0.4, 0.3, 0.5), Interval(0.2, 0.1, 0.3))
    assert found[2].before is None
    assert found[2].gain is None


def test_quadrants_weigh_kept_shares_by_tokens():
    # Kept mass of all tokens: step 1: 0.2 of Q1 all kept, 0.8 of Q4 a quarter kept -> 0.2, 0.2;
    # step 2: 0.4, none of Q4 -> 0.4, 0 means 0.3 and 0.1: Q1 is 3/4 of what was kept, all of Q1 was
    # kept (0.3 of 0.3), of Q4 0.1 / 0.7.
    nan = math.nan
    first = {
        "step": 1,
        "share_Q1": 0.2,
        "share_Q2": 0.0,
        "share_Q3": 0.0,
        "share_Q4": 0.8,
        "kept_Q1": 1.0,
        "kept_Q2": nan,
        "kept_Q3": nan,
        "kept_Q4": 0.25,
    }
    second = first | {"step": 2, "share_Q1": 0.4, "share_Q4": 0.6, "kept_Q4": 0.0}
    unknown = {"step": 3, "share_Q1": nan, "share_Q2": 0.0, "share_Q3": 0.0, "share_Q4": 1.0}
    q1, q2, _, q4 = quadrants(RunRecord(name="r", steps=(first, second, unknown)))
    assert (q1.tokens, q1.kept, q1.of_kept) == pytest.approx((0.3, 1.0, 0.75))
    assert (q4.tokens, q4.kept, q4.of_kept) == pytest.approx((0.7, 1 / 7, 0.25))
    assert q2.of_kept == 0
    assert math.isnan(q2.kept)


def test_quadrants_without_kept_shares_are_not_numbers():
    row = {"step": 1, **{f"share_Q{i}": 0.25 for i in (1, 2, 3, 4)}}
    assert all(
        math.isnan(q.of_kept) and math.isnan(q.kept) and q.tokens == 0.25
        for q in quadrants(RunRecord(name="r", steps=(row,)))
    )
    assert quadrants(RunRecord(name="r")) == []


def test_measurements_keep_what_is_not_finite_out_of_the_mean():
    run = RunRecord(
        name="r",
        steps=({"step": 1, "loss": 1.0}, {"step": 2, "loss": math.inf}, {"step": 3, "loss": 4.0}),
    )
    assert measurements(run) == {
        "loss": {"first": 1.0, "last": 4.0, "low": 1.0, "high": 4.0, "mean": 2.5}
    }
