"""Geometry of the pictures."""

from __future__ import annotations

from reasontrain.leaderboard.columns import columns
from reasontrain.leaderboard.drawing import Bar, bar, curve, legend, marks, scatter, tones
from reasontrain.leaderboard.entries import read_entries
from reasontrain.metrics.accuracy import Interval
from tests.leaderboard.conftest import single


def test_a_bar_lies_between_the_ends_of_its_column():
    """From 40 to 60 %: 45 % is a quarter of the way."""
    assert bar(Interval(0.45, 0.42, 0.5), 0.4, 0.6) == Bar(25.0, 10.0, 50.0)


def test_the_axis_of_a_column_encloses_its_intervals(make_run):
    """1 of 2 has Wilson's interval [9.5, 90.5] percent; 50 of 100 has Wilson's interval [40.4,
    59.6].
    """
    for name, pattern, expected in (
        ("a", "10", (0.0, 0.5, 1.0)),
        ("b", "10" * 50, (0.4, 0.45, 0.5, 0.55, 0.6)),
    ):
        (column,) = columns(read_entries([make_run(name, {1: single(pattern)})]), apart=False)
        assert marks(column) == expected


def test_runs_that_differ_by_their_seed_have_one_colour(make_run):
    entries = read_entries(
        [make_run("a-0", {1: single("10")}), make_run("a-1", {1: single("10")}, seed=1)]
    )
    assert tones(entries) == {"a-0": "a", "a-1": "a"}
    assert legend(entries) == [("a", "a")]


def test_a_seventh_arm_has_the_first_colour_and_dashes(make_report):
    entries = read_entries([make_report(f"m{i}", {"s": single("10")}) for i in range(7)])
    assert list(tones(entries).values()) == ["a", "b", "c", "d", "e", "f", "a dash"]


def test_curves_are_of_runs_that_were_evaluated_on_the_way(make_run):
    entries = read_entries(
        [make_run("a", {0: single("00"), 10: single("11")}), make_run("b", {10: single("10")})]
    )
    (column,) = columns(entries, apart=False)
    drawn, rows = curve(column, entries)
    assert rows == ("a",)
    assert [line.label for line in drawn.lines] == ["a"]


def test_longer_responses_lie_further_to_the_right_and_better_ones_higher(make_run):
    entries = read_entries(
        [
            make_run("a", {1: single("10")}, tokens=50.0),
            make_run("b", {1: single("11")}, tokens=90.0),
        ]
    )
    (column,) = columns(entries, apart=False)
    picture = scatter(column, entries)
    best, other = picture.points
    assert (best.row, other.row) == ("b", "a")
    assert best.x > other.x
    assert best.y < other.y
    assert [point.label for point in picture.points] == ["b", "a"]


def test_labels_that_would_lie_on_each_other_are_left_out(make_run):
    entries = read_entries([make_run(name, {1: single("10")}, tokens=50.0) for name in ("a", "b")])
    (column,) = columns(entries, apart=False)
    picture = scatter(column, entries)
    assert [point.label for point in picture.points] == ["a", ""]
    assert [point.name for point in picture.points] == ["a", "b"]
