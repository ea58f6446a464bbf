"""Geometry of line charts: SVG paths and labels, which the template colours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from reasontrain.metrics.accuracy import Interval
from reasontrain.report.numbers import Number, mean, percent, short

Point = tuple[Number, Number]

WIDTH = 360
HEIGHT = 190
LEFT = 46
"""Margins, in pixels."""
RIGHT = 10
TOP = 10
BOTTOM = 26
MAX_POINTS = 240
SMOOTH_FROM = 30


@dataclass(frozen=True, kw_only=True)
class Series:
    """A line: its points in order of x, and optional intervals at the same points.

    `tone` is a CSS class.
    """

    label: str
    points: Sequence[Point]
    intervals: Sequence[Interval] = ()
    tone: str = "a"


@dataclass(frozen=True, kw_only=True)
class ChartLine:
    """A series in pixels.

    `faint` is the raw line behind a smoothed one; `gaps` are the x positions of values that are not
    finite.
    """

    label: str
    tone: str
    path: str
    faint: str
    band: str
    dots: tuple[Point, ...]
    whiskers: tuple[tuple[Number, Number, Number], ...]
    gaps: tuple[float, ...]
    first: str
    last: str


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A chart; `alt` describes it in words."""

    title: str
    note: str
    lines: tuple[ChartLine, ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    alt: str
    legend: bool


@dataclass(frozen=True)
class Scale:
    """A linear map from numbers to pixels along one axis."""

    low: Number
    high: Number
    start: Number
    end: Number

    def __call__(self, value: Number) -> float:
        return round(
            self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start), 1
        )


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A vertical axis, which includes `floor` and `ceiling`; `shares` are shown in percent."""

    floor: Number | None = None
    ceiling: Number | None = None
    shares: bool = False


def ticks(low: Number, high: Number, num: int = 4) -> list[float]:
    """About `num` round numbers that enclose low and high, in steps of 1, 2 or 5 times 10^n."""
    if high <= low:
        low -= (abs(low) or 1) / 2
        high += (abs(high) or 1) / 2
    rough = (high - low) / num
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]


def chart(
    title: str, series: Sequence[Series], *, axis: Axis | None = None, note: str = ""
) -> Chart | None:
    """Lay out a chart.

    Args:
        title: title of the chart.
        series: lines of the chart.
        axis: the vertical axis; fitted to the values by default.
        note: text under the chart.

    Returns:
        The chart; None if no value is finite.
    """
    axis = axis or Axis()
    values = [y for s in series for _, y in s.points] + [
        end for s in series for i in s.intervals for end in (i.low, i.high)
    ]
    finite = [y for y in values if math.isfinite(y)]
    if not finite:
        return None
    y_values = ticks(
        min([*finite, *_optional(axis.floor)]), max([*finite, *_optional(axis.ceiling)])
    )
    x_low = min(x for s in series for x, _ in s.points)
    x_high = max(x for s in series for x, _ in s.points)
    across = Scale(x_low, x_high if x_high > x_low else x_low + 1, LEFT, WIDTH - RIGHT)
    up = Scale(y_values[0], y_values[-1], HEIGHT - BOTTOM, TOP)
    lines = tuple(_line(s, across, up, axis) for s in series)
    ends = "; ".join(f"{line.label} from {line.first} to {line.last}" for line in lines)
    return Chart(
        title=title,
        note=note + _not_finite_note(lines),
        lines=lines,
        x_ticks=tuple(
            (across(x), f"{x:,.0f}")
            for x in ticks(x_low, across.high, 5)
            if x_low <= x <= across.high and x == int(x)
        ),
        y_ticks=share_marks(y_values, up)
        if axis.shares
        else tuple((up(y), short(y)) for y in y_values),
        alt=f"{title} by training step: {ends}",
        legend=len(lines) > 1,
    )


def share_marks(shares: Sequence[Number], up: Scale) -> tuple[tuple[float, str], ...]:
    """Positions and labels of shares on an axis, with one decimal if they are close together."""
    num_decimals = 0 if shares[-1] - shares[0] > 0.04 else 1
    return tuple((up(share), percent(share, num_decimals)) for share in shares)


def thinned(points: Sequence[Point], num: int = MAX_POINTS) -> list[Point]:
    """Reduce to at most `num` points, each the mean of the finite values of consecutive points."""
    size = math.ceil(len(points) / num)
    runs = [points[i : i + size] for i in range(0, len(points), size)] if size > 1 else []
    return [(mean([x for x, _ in run]), mean([y for _, y in run])) for run in runs] or list(points)


def smoothed(points: Sequence[Point]) -> list[Point]:
    """Centred running mean over about a tenth of the points."""
    reach = max(1, len(points) // 20)
    return [
        (x, mean([y for _, y in points[max(0, i - reach) : i + reach + 1]]))
        for i, (x, _) in enumerate(points)
    ]


def _line(series: Series, across: Scale, up: Scale, axis: Axis) -> ChartLine:
    """A series in pixels.

    Few points are drawn as dots; many are averaged and smoothed, with the raw line behind them.
    """
    points = thinned(series.points)
    show = percent if axis.shares else short
    smooth = len(points) >= SMOOTH_FROM
    finite = [(x, y) for x, y in series.points if math.isfinite(y)]
    whiskers = [
        (x, i)
        for (x, _), i in zip(series.points, series.intervals, strict=False)
        if math.isfinite(i.low + i.high)
    ]
    return ChartLine(
        label=series.label,
        tone=series.tone,
        path=_path(smoothed(points) if smooth else points, across, up),
        faint=_path(points, across, up) if smooth else "",
        band=_band(whiskers, across, up) if len(whiskers) > 2 else "",
        dots=() if smooth else tuple((across(x), up(y)) for x, y in points if math.isfinite(y)),
        whiskers=()
        if len(whiskers) > 2
        else tuple((across(x), up(i.low), up(i.high)) for x, i in whiskers),
        gaps=tuple(across(x) for x, y in series.points if not math.isfinite(y)),
        first=show(finite[0][1]) if finite else "NaN",
        last=show(finite[-1][1]) if finite else "NaN",
    )


def _path(points: Sequence[Point], across: Scale, up: Scale) -> str:
    """An SVG path, interrupted at values that are not finite."""
    parts: list[str] = []
    pen = "M"
    for x, y in points:
        if math.isfinite(y):
            parts.append(f"{pen}{across(x):g} {up(y):g}")
        pen = "L" if math.isfinite(y) else "M"
    return "".join(parts)


def _band(ends: Sequence[tuple[Number, Interval]], across: Scale, up: Scale) -> str:
    """An SVG path around the area between the low and the high ends."""
    forth = [f"{across(x):g} {up(i.high):g}" for x, i in ends]
    back = [f"{across(x):g} {up(i.low):g}" for x, i in reversed(ends)]
    return "M" + "L".join(forth + back) + "Z"


def _optional(value: Number | None) -> list[Number]:
    return [] if value is None else [value]


def _not_finite_note(lines: Sequence[ChartLine]) -> str:
    num = sum(len(line.gaps) for line in lines)
    return (
        f" {num} step{'s' * (num > 1)} without a finite value, marked on the axis." if num else ""
    )


@dataclass(frozen=True, kw_only=True)
class Dumbbell:
    """Two intervals on one axis of shares, in percent of its width; `before` may be missing."""

    before: Interval | None
    after: Interval


def dumbbell(before: Interval | None, after: Interval) -> Dumbbell:
    """Intervals of shares as positions in percent, clipped to the axis."""
    return Dumbbell(before=before and _in_percent(before), after=_in_percent(after))


def _in_percent(interval: Interval) -> Interval:
    ends = (interval.value, interval.low, interval.high)
    return Interval(
        *(round(100 * min(1.0, max(0.0, end)), 2) if math.isfinite(end) else 0.0 for end in ends)
    )
