"""Geometry of the board's plots: intervals in cells, accuracy by step and by response length."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reasontrain.evaluation.compare import common
from reasontrain.leaderboard.columns import BoardColumn, history
from reasontrain.leaderboard.entries import Entry
from reasontrain.metrics.accuracy import Interval
from reasontrain.report.charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    TOP,
    WIDTH,
    Axis,
    Chart,
    Scale,
    Series,
    chart,
    share_marks,
    ticks,
)
from reasontrain.report.numbers import percent, short

TONES = "abcdef"
MAX_BANDS = 4
LABEL_HEIGHT = 11.0
"""Height of a line of a label, in pixels."""
LABEL_WIDTH = 6.0
"""Width of a character, in pixels."""
LEAST_SPAN = 0.75
LENGTH = "response_tokens_mean"


@dataclass(frozen=True)
class Bar:
    """An interval in percent of the width of its cell."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Point:
    """A row in a scatter plot, in pixels.

    The label is to the left of the point if `left` is true, and empty if it does not fit.
    """

    row: str
    name: str
    label: str
    tone: str
    x: float
    y: float
    low: float
    high: float
    left: bool


@dataclass(frozen=True, kw_only=True)
class Scatter:
    """A plot of accuracy against response length for one column."""

    title: str
    note: str
    points: tuple[Point, ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    alt: str


def tones(entries: Sequence[Entry]) -> dict[str, str]:
    """CSS classes of each row: a colour, and dashes from the seventh arm on.

    Rows that differ only in their seed share a class.
    """
    arms = list(dict.fromkeys(entry.arm for entry in entries))
    return {entry.slug: _tone(arms.index(entry.arm)) for entry in entries}


def legend(entries: Sequence[Entry]) -> list[tuple[str, str]]:
    """The classes of each arm, and the common part of the names of its rows."""
    arms: dict[str, list[str]] = {}
    for entry in entries:
        arms.setdefault(entry.arm, []).append(entry.name)
    return [(_tone(number), common(names)) for number, names in enumerate(arms.values())]


def _tone(number: int) -> str:
    return TONES[number % len(TONES)] + (" dash" if number // len(TONES) % 2 else "")


def marks(column: BoardColumn) -> tuple[float, ...]:
    """Round numbers from 0 to 1 that enclose every interval of a column."""
    finite = [
        end for cell in column.cells.values() for end in (cell.low, cell.high) if math.isfinite(end)
    ] or [0.0, 1.0]
    inside = tuple(mark for mark in ticks(min(finite), max(finite)) if 0 <= mark <= 1)
    return inside if len(inside) > 1 else (0.0, 1.0)


def bar(cell: Interval, low: float, high: float) -> Bar:
    """A cell on the axis of its column."""
    across = Scale(low, high, 0, 100)
    return Bar(
        *(across(end) if math.isfinite(end) else 0.0 for end in (cell.value, cell.low, cell.high))
    )


def curve(column: BoardColumn, entries: Sequence[Entry]) -> tuple[Chart, tuple[str, ...]] | None:
    """The chart of the metric by training step, and the row of each line.

    None if no row was evaluated more than once.
    """
    tone = tones(entries)
    names = {entry.slug: entry.name for entry in entries}
    by_row = {
        row: [e for e in evaluations if column.metric in e.metrics]
        for row, evaluations in history(entries, column.group).items()
    }
    by_row = {row: evaluations for row, evaluations in by_row.items() if len(evaluations) > 1}
    series = [
        Series(
            label=names[row],
            points=[(e.step, e.metrics[column.metric].value) for e in evaluations],
            intervals=[e.metrics[column.metric] for e in evaluations]
            if len(by_row) <= MAX_BANDS
            else (),
            tone=tone[row],
        )
        for row, evaluations in by_row.items()
    ]
    drawn = (
        chart(
            column.group.name,
            series,
            axis=Axis(shares=True),
            note=f"{column.metric}; {column.group.setting}",
        )
        if series
        else None
    )
    return (drawn, tuple(by_row)) if drawn else None


def scatter(column: BoardColumn, entries: Sequence[Entry]) -> Scatter | None:
    """The metric against the mean number of response tokens; None for fewer than two rows."""
    lengths = {
        row: r.evaluation.numbers.get(LENGTH, math.nan) for row, r in column.group.results.items()
    }
    rows = [row for row in column.order if math.isfinite(lengths[row] + column.cells[row].value)]
    if len(rows) < 2:
        return None
    shortest = min(lengths[row] for row in rows)
    longest = max(lengths[row] for row in rows)
    # a wide axis, so that lengths that hardly differ look alike
    x_marks = ticks(min(shortest, LEAST_SPAN * longest), longest)
    y_marks = marks(column)
    across = Scale(x_marks[0], x_marks[-1], LEFT, WIDTH - RIGHT)
    up = Scale(y_marks[0], y_marks[-1], HEIGHT - BOTTOM, TOP)
    values = "; ".join(
        f"{row} {percent(column.cells[row].value)} at {short(lengths[row])}" for row in rows
    )
    return Scatter(
        title=column.group.name,
        note=f"{column.metric}; {column.group.setting}",
        points=_points(rows, column, lengths, across, up, entries),
        x_ticks=tuple((across(x), f"{x:,g}") for x in x_marks),
        y_ticks=share_marks(y_marks, up),
        alt=f"{column.metric} on {column.group.name} against mean response tokens: {values}",
    )


def _points(
    rows: Sequence[str],
    column: BoardColumn,
    lengths: Mapping[str, float],
    across: Scale,
    up: Scale,
    entries: Sequence[Entry],
) -> tuple[Point, ...]:
    """Points from top to bottom.

    A label that would overlap another label or a point is left out; the page shows it on hover.
    """
    tone = tones(entries)
    names = {entry.slug: entry.name for entry in entries}
    occupied = [
        _Box(across(lengths[row]) - 4, across(lengths[row]) + 4, up(column.cells[row].value))
        for row in rows
    ]
    points: list[Point] = []
    for row in rows:
        cell = column.cells[row]
        x = across(lengths[row])
        width = LABEL_WIDTH * len(names[row])
        left = x + width > WIDTH - RIGHT
        box = (
            _Box(x - 7 - width, x - 7, up(cell.value))
            if left
            else _Box(x + 7, x + 7 + width, up(cell.value))
        )
        free = box.start >= LEFT and not any(box.meets(other) for other in occupied)
        occupied += [box] if free else []
        ends = (up(cell.value), up(cell.low), up(cell.high))
        label = names[row] if free else ""
        points.append(
            Point(
                row=row,
                name=names[row],
                label=label,
                tone=tone[row],
                x=x,
                y=ends[0],
                low=ends[1],
                high=ends[2],
                left=left,
            )
        )
    return tuple(points)


@dataclass(frozen=True)
class _Box:
    """A line of text, or a point, in pixels."""

    start: float
    end: float
    middle: float

    def meets(self, other: _Box) -> bool:
        """True if the two overlap."""
        return (
            self.start < other.end
            and other.start < self.end
            and abs(self.middle - other.middle) < LABEL_HEIGHT
        )
