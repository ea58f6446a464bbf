"""Pictures of the board as geometry: an interval in its cell, accuracy over steps, accuracy against
response length.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reasontrain.evaluation.compare import common
from reasontrain.leaderboard.columns import BoardColumn, course
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
LABEL_HEIGHT, LABEL_WIDTH = 11.0, 6.0
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
    """A row in a picture of two measures, in pixels.

    Its label stands to its left where `left`; "" where there is no room.
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
    """Accuracy against response length in one column."""

    title: str
    note: str
    points: tuple[Point, ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    alt: str


def tones(entries: Sequence[Entry]) -> dict[str, str]:
    """CSS classes of each row: a colour, and dashes from the seventh on; rows that differ by their
    seed alone share them.
    """
    arms = list(dict.fromkeys(entry.arm for entry in entries))
    return {entry.slug: _tone(arms.index(entry.arm)) for entry in entries}


def legend(entries: Sequence[Entry]) -> list[tuple[str, str]]:
    """The classes of each arm, and what the names of its rows have in common."""
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
    found = tuple(mark for mark in ticks(min(finite), max(finite)) if 0 <= mark <= 1)
    return found if len(found) > 1 else (0.0, 1.0)


def bar(cell: Interval, low: float, high: float) -> Bar:
    """A cell between the ends of its column."""
    across = Scale(low, high, 0, 100)
    return Bar(
        *(across(end) if math.isfinite(end) else 0.0 for end in (cell.value, cell.low, cell.high))
    )


def curve(column: BoardColumn, entries: Sequence[Entry]) -> tuple[Chart, tuple[str, ...]] | None:
    """The metric over training steps, and the row of each line; None where no row was evaluated on
    the way.
    """
    tone, names = tones(entries), {entry.slug: entry.name for entry in entries}
    found = {
        row: [e for e in evaluations if column.metric in e.metrics]
        for row, evaluations in course(entries, column.group).items()
    }
    found = {row: evaluations for row, evaluations in found.items() if len(evaluations) > 1}
    series = [
        Series(
            label=names[row],
            points=[(e.step, e.metrics[column.metric].value) for e in evaluations],
            intervals=[e.metrics[column.metric] for e in evaluations]
            if len(found) <= MAX_BANDS
            else (),
            tone=tone[row],
        )
        for row, evaluations in found.items()
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
    return (drawn, tuple(found)) if drawn else None


def scatter(column: BoardColumn, entries: Sequence[Entry]) -> Scatter | None:
    """The metric against the mean number of response tokens; None where fewer than two rows state
    it.
    """
    lengths = {
        row: r.evaluation.numbers.get(LENGTH, math.nan) for row, r in column.group.results.items()
    }
    rows = [row for row in column.order if math.isfinite(lengths[row] + column.cells[row].value)]
    if len(rows) < 2:
        return None
    shortest, longest = min(lengths[row] for row in rows), max(lengths[row] for row in rows)
    x_marks = ticks(
        min(shortest, LEAST_SPAN * longest), longest
    )  # lengths that hardly differ look alike
    y_marks = marks(column)
    across, up = (
        Scale(x_marks[0], x_marks[-1], LEFT, WIDTH - RIGHT),
        Scale(y_marks[0], y_marks[-1], HEIGHT - BOTTOM, TOP),
    )
    said = "; ".join(
        f"{row} {percent(column.cells[row].value)} at {short(lengths[row])}" for row in rows
    )
    return Scatter(
        title=column.group.name,
        note=f"{column.metric}; {column.group.setting}",
        points=_points(rows, column, lengths, across, up, entries),
        x_ticks=tuple((across(x), f"{x:,g}") for x in x_marks),
        y_ticks=share_marks(y_marks, up),
        alt=f"{column.metric} on {column.group.name} against mean response tokens: {said}",
    )


def _points(
    rows: Sequence[str],
    column: BoardColumn,
    lengths: Mapping[str, float],
    across: Scale,
    up: Scale,
    entries: Sequence[Entry],
) -> tuple[Point, ...]:
    """Rows from the top down; a label that would lie on another one or on a point is left out, and
    is read by pointing.
    """
    tone, names = tones(entries), {entry.slug: entry.name for entry in entries}
    taken = [
        _Box(across(lengths[row]) - 4, across(lengths[row]) + 4, up(column.cells[row].value))
        for row in rows
    ]
    points: list[Point] = []
    for row in rows:
        cell, x, width = column.cells[row], across(lengths[row]), LABEL_WIDTH * len(names[row])
        left = x + width > WIDTH - RIGHT
        box = (
            _Box(x - 7 - width, x - 7, up(cell.value))
            if left
            else _Box(x + 7, x + 7 + width, up(cell.value))
        )
        free = box.start >= LEFT and not any(box.meets(other) for other in taken)
        taken += [box] if free else []
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
        """Whether one covers a part of the other."""
        return (
            self.start < other.end
            and other.start < self.end
            and abs(self.middle - other.middle) < LABEL_HEIGHT
        )
