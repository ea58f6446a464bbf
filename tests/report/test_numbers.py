"""How numbers are written."""

from __future__ import annotations

import json
import math

import pytest

from reasontrain.report.numbers import duration, mean, percent, portable, short, signed_points

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (-0.0, "0"),
        (1, "1"),
        (0.01234, "0.0123"),
        (4.567, "4.57"),
        (-4.5, "−4.5"),
        (9120.4, "9,120"),
        (12_345.0, "12.3\u202fk"),
        (7.6e9, "7.6\u202fG"),
        (1.234e-7, "1.23e−7"),
        (5e-5, "5e−5"),
        (NAN, "NaN"),
        (INF, "∞"),
        (-INF, "−∞"),
    ],
)
def test_short(value, text):
    assert short(value) == text


def test_percent_and_points():
    assert percent(0.4434) == "44.3\u202f%"
    assert percent(NAN) == "NaN"
    assert [signed_points(v) for v in (0.185, -0.027, 0.0)] == ["+18.5", "−2.7", "0.0"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3.21, "3.2 s"), (71, "1 min 11 s"), (3661, "1 h 1 min"), (59.99, "60 s"), (NAN, "NaN")],
)
def test_duration(seconds, text):
    assert duration(seconds).replace("\u202f", " ") == text


def test_portable_json_names_what_json_cannot_hold():
    value = {"a": [NAN, INF, {"b": -INF}], "c": 1.5, "d": None, "e": True, "f": "NaN"}
    assert json.loads(json.dumps(portable(value), allow_nan=False)) == {
        "a": ["NaN", "Infinity", {"b": "-Infinity"}],
        "c": 1.5,
        "d": None,
        "e": True,
        "f": "NaN",
    }


def test_mean_leaves_out_what_is_not_finite():
    assert mean([1.0, NAN, 3.0, INF]) == 2.0
    assert math.isnan(mean([NAN]))
