"""Geometry of the charts, by hand."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from reasontrain.metrics.accuracy import Interval
from reasontrain.report.charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Axis,
    Series,
    chart,
    dumbbell,
    smoothed,
    thinned,
    ticks,
)


def test_ticks_are_round_and_enclose():
    assert ticks(0.26, 0.445) == [0.25, 0.3, 0.35, 0.4, 0.45]
    assert ticks(0, 60, 5) == [0, 20, 40, 60]
    assert ticks(0, 1) == [0, 0.5, 1]


@given(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9))
def test_ticks_enclose_any_range(one, other):
    low, high = sorted((one, other))
    found = ticks(low, high)
    slack = (found[-1] - found[0]) * 1e-6
    assert found[0] <= low + slack
    assert found[-1] >= high - slack
    assert 2 <= len(found) <= 8


def test_a_line_runs_from_corner_to_corner():
    # y from 0 to 1 over x from 0 to 10: bottom left to top right of the drawing area
    drawn = chart("Loss", [Series(label="loss", points=[(0, 0.0), (10, 1.0)])])
    assert drawn is not None
    assert drawn.lines[0].path == f"M{LEFT} {HEIGHT - BOTTOM}L{WIDTH - RIGHT} {TOP}"
    assert drawn.alt == "Loss by training step: loss from 0 to 1"


def test_the_pen_is_lifted_where_a_number_is_not_finite():
    drawn = chart(
        "Loss",
        [Series(label="loss", points=[(0, 0.0), (1, math.nan), (2, 0.5), (3, math.inf), (4, 1.0)])],
    )
    assert drawn is not None
    assert drawn.lines[0].path.count("M") == 3
    assert len(drawn.lines[0].gaps) == 2
    assert "2 steps without a finite value" in drawn.note


def test_nothing_finite_draws_nothing():
    assert chart("Loss", [Series(label="loss", points=[(0, math.nan)])]) is None
    assert chart("Loss", []) is None


def test_one_point_is_a_dot():
    drawn = chart("Loss", [Series(label="loss", points=[(3, 2.0)])])
    assert drawn is not None
    assert len(drawn.lines[0].dots) == 1


def test_intervals_stay_on_the_chart():
    whole = Interval(0.5, 0.0, 1.0)
    drawn = chart(
        "Accuracy",
        [Series(label="s", points=[(0, 0.5), (9, 0.5)], intervals=[whole, whole])],
        axis=Axis(shares=True),
    )
    assert drawn is not None
    assert {(low, high) for _, low, high in drawn.lines[0].whiskers} == {(HEIGHT - BOTTOM, TOP)}


def test_many_points_become_means_of_neighbours():
    assert thinned([(0, 1.0), (1, 3.0), (2, 5.0), (3, math.nan)], num=2) == [(0.5, 2.0), (2.5, 5.0)]
    assert len(thinned([(x, 1.0) for x in range(10_001)])) <= 240


def test_smoothing_is_a_centred_mean():
    # 3 points: reach 1 -> means of (0, 3), (0, 3, 6), (3, 6)
    assert smoothed([(0, 0.0), (1, 3.0), (2, 6.0)]) == [(0, 1.5), (1, 3.0), (2, 4.5)]


def test_dumbbell_in_percent():
    bell = dumbbell(None, Interval(0.4434, -0.1, 1.2))
    assert bell.before is None
    assert bell.after == Interval(44.34, 0.0, 100.0)
