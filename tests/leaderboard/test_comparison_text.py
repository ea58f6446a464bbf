"""The answer in words."""

from __future__ import annotations

import pytest

from reasontrain.leaderboard.columns import BoardColumn, ColumnGroup
from reasontrain.leaderboard.comparison_text import verdict
from reasontrain.metrics.accuracy import Interval


def column(values, gaps):
    """Rows by value, and the difference of the best from each other one."""
    cells = {row: Interval(value, value - 0.05, value + 0.05) for row, value in values.items()}
    best = max(values, key=values.get)
    group = ColumnGroup(name="s", suite="s", results={}, fingerprint={})
    return BoardColumn(
        group=group,
        metric="accuracy",
        cells=cells,
        differences={(best, row): Interval(*gap) for row, gap in gaps.items()},
    )


CLEAR, UNCLEAR = (0.1, 0.04, 0.16), (0.02, -0.03, 0.07)


@pytest.mark.parametrize(
    ("values", "gaps", "sentence"),
    [
        ({"a": 0.6}, {}, "a reaches 60.0 %."),
        (
            {"a": 0.6, "b": 0.5},
            {"b": CLEAR},
            "a is best with 60.0 %, 10.0 points [+4.0, +16.0] ahead of b.",
        ),
        (
            {"a": 0.6, "b": 0.5, "c": 0.4},
            {"b": CLEAR, "c": CLEAR},
            "a is best with 60.0 %, 10.0 points [+4.0, +16.0] ahead of b and of 1 more.",
        ),
        ({"a": 0.6, "b": 0.58}, {"b": UNCLEAR}, "a has 60.0 %; b is not significantly worse."),
        (
            {"a": 0.6, "b": 0.58, "c": 0.5},
            {"b": UNCLEAR, "c": CLEAR},
            "a has 60.0 %; b is not significantly worse. c is significantly worse.",
        ),
        (
            {"a": 0.6, "b": 0.5},
            {},
            "a has 60.0 %; the other rows have no answers, so they cannot be compared.",
        ),
    ],
)
def test_what_is_said(values, gaps, sentence):
    said = verdict(column(values, gaps), {row: row for row in values})
    assert " ".join(said).replace("\N{NARROW NO-BREAK SPACE}", " ") == sentence


def test_a_long_list_is_counted():
    values = {"a": 0.6} | {f"b{i}": 0.59 for i in range(6)}
    said = verdict(
        column(values, {row: UNCLEAR for row in values if row != "a"}), {row: row for row in values}
    )
    assert said[1].endswith("; b0, b1, b2 and 3 more are not significantly worse.")
