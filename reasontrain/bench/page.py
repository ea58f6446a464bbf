"""Records as Markdown, with a picture of their ratios."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape

from reasontrain.bench.case import Setting
from reasontrain.bench.measure import GoalResult, Measured, SideMeasured
from reasontrain.bench.record import BenchRecord

HEAD = "| row | beside | time, ours / theirs | ours | theirs | memory | goal |"
RULE = "| --- | --- | --- | --- | --- | --- | --- |"


def markdown(records: Sequence[BenchRecord], pictures: Mapping[str, str]) -> str:
    """A page of all records; `pictures` names the file of each record's picture."""
    lines = [
        "# How fast, and beside what",
        "",
        "Written by `reasontrain bench`, never by hand. A ratio is our time over the "
        "peer's in pairs of runs that followed each "
        "other: the median [minimum, maximum]; below 1 we are faster. Memory is the most "
        "that one run adds.",
        "",
    ]
    for record in records:
        lines += [*_section(record, pictures.get(record.name)), ""]
    return "\n".join(lines)


def _section(record: BenchRecord, picture: str | None) -> Iterator[str]:
    yield f"## {record.table}, {record.device}"
    yield ""
    yield _made(record)
    yield ""
    if picture:
        yield f"![ratios of {record.table}]({picture})"
        yield ""
    yield from table(record)
    yield ""
    for row in record.rows:
        yield (
            f"- `{row.name}`: {row.what}; {_settings(row.work)}, {row.threads} "
            f"threads.{_searched(row)}{_remark(row)}"
        )


def table(record: BenchRecord) -> Iterator[str]:
    """The rows of a record as a Markdown table."""
    yield HEAD
    yield RULE
    for row in record.rows:
        memory = (
            ""
            if row.memory_ratio is None
            else f"{row.memory_ratio:.2f} x ({_bytes(row.ours)} / {_bytes(row.peer)})"
        )
        yield (
            f"| `{row.name}` | {row.peer.name} | {ratio(row)} | {_speed(row, row.ours)} | "
            f"{_speed(row, row.peer)} | {memory} | "
            f"{'; '.join(map(_goal, row.goals))} |"
        )


def ratio(row: Measured) -> str:
    """Median [minimum, maximum]."""
    spread = row.time_ratio
    return f"**{spread.median:.2f} x** [{spread.low:.2f}, {spread.high:.2f}]"


def _speed(row: Measured, side: SideMeasured) -> str:
    """Seconds, and how many units in one."""
    what, number = row.units
    return f"{side.median:.3g} s ({number / side.median:,.0f} {what}/s)"


def _goal(met: GoalResult) -> str:
    if met.measured is None:
        return f"{met.goal.of} {met.goal.at_most:g}: not measured"
    unit = " s" if met.goal.of == "seconds" else " x"
    return (
        f"{met.goal.of} at most {met.goal.at_most:.3g}{unit}: "
        f"{'met' if met.met else f'**missed** ({met.measured:.2f})'}"
    )


def _bytes(side: SideMeasured) -> str:
    assert side.peak_bytes is not None, "a ratio was made of it"
    return f"{side.peak_bytes / 2**20:,.0f} MiB"


def _settings(settings: Mapping[str, Setting]) -> str:
    return ", ".join(
        f"{name} {value:,}" if type(value) is int else f"{name} {value}"
        for name, value in settings.items()
    )


def _searched(row: Measured) -> str:
    """Each side's settings, and among how many they were the fastest."""
    found = [
        f" "
        f"{side.name}{f' was searched over {len(side.tried)} settings' if side.tried else ''}: "
        f"{_settings(side.settings)}."
        for side in (row.ours, row.peer)
        if side.settings
    ]
    return "".join(found)


def _remark(row: Measured) -> str:
    return f" {row.remark}" if row.remark else ""


def _made(record: BenchRecord) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in record.versions.items())
    changed = " with changes" if record.origin.changed else ""
    quick = (
        " Quick: fewer runs and settings, and less work in some rows; the goals are a full run's."
        if record.quick
        else ""
    )
    return (
        f"{record.origin.hardware}; commit {record.origin.commit[:7]}{changed}; {packages}; "
        f"{record.runs} runs a side.{quick}"
    )


Scale = Callable[[float], float]
WIDTH, LEFT, RIGHT, STEP, TOP = 760, 190, 90, 34, 40
STYLE = (
    "text{font:13px "
    "ui-sans-serif,system-ui,sans-serif;fill:#18181c}.soft{fill:#5d5d68}line{stroke:#d4d4d2}"
    ".one{stroke:#5d5d68}.fast{fill:#1f5fa8}.slow{fill:#c2551a}.spread{stroke:#18181c;stroke-width:1.5}.goal{stroke:#2f7d54;"
    "stroke-width:2}@media(prefers-color-scheme:dark){text{fill:#ececf0}.soft{fill:#a3a3ad}line{stroke:#303238}"
    ".one{stroke:#a3a3ad}.fast{fill:#7ab4f5}.slow{fill:#f0915a}.spread{stroke:#ececf0}.goal{stroke:#6fc79a}}"
)


def picture(record: BenchRecord) -> str:
    """The ratios of time as an SVG: a bar a row from 1, to the left where we are faster; a green
    mark is the goal.

    The axis is logarithmic, so that twice as fast is as long as twice as slow.
    """
    ends = [end for row in record.rows for end in (row.time_ratio.low, row.time_ratio.high)]
    low, high = min([0.25, *ends]), max([2.0, *ends])

    def across(value: float) -> float:
        share = (math.log(value) - math.log(low)) / (math.log(high) - math.log(low))
        return round(LEFT + min(max(share, 0.0), 1.0) * (WIDTH - LEFT - RIGHT), 1)

    height = TOP + STEP * len(record.rows) + 12
    said = "; ".join(
        f"{row.name} {row.time_ratio.median:.2f} times the time of {row.peer.name}"
        for row in record.rows
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'role="img" aria-label="{escape(said)}">',
        f"<style>{STYLE}</style>",
        f'<text class="soft" x="{LEFT}" y="16">time, ours / theirs '
        f"({escape(record.device)})</text>",
    ]
    for mark in (2.0**power for power in range(-6, 5)):
        if low <= mark <= high:
            kind = ' class="one"' if mark == 1 else ""
            parts.append(
                f'<line{kind} x1="{across(mark)}" x2="{across(mark)}" y1="{TOP - 6}" '
                f'y2="{height - 12}"/>'
            )
            parts.append(
                f'<text class="soft" x="{across(mark)}" y="{TOP - 10}" '
                f'text-anchor="middle">{mark:g}</text>'
            )
    for index, row in enumerate(record.rows):
        parts += _bar(row, across, TOP + STEP * index)
    return "\n".join([*parts, "</svg>", ""])


def _bar(row: Measured, across: Scale, top: int) -> Iterator[str]:
    """One row: name, bar, spread, figure, goal."""
    spread, middle = row.time_ratio, top + STEP / 2
    left, right = sorted((across(spread.median), across(1.0)))
    kind = "fast" if spread.median <= 1 else "slow"
    yield f'<text x="{LEFT - 10}" y="{middle + 4}" text-anchor="end">{escape(row.name)}</text>'
    yield (
        f'<rect class="{kind}" x="{left}" y="{top + 8}" width="{round(right - left, 1)}" '
        f'height="{STEP - 16}" rx="2"/>'
    )
    yield (
        f'<line class="spread" x1="{across(spread.low)}" x2="{across(spread.high)}" '
        f'y1="{middle}" y2="{middle}"/>'
    )
    for met in row.goals:
        if met.goal.of == "time":
            at = across(met.goal.at_most)
            yield f'<line class="goal" x1="{at}" x2="{at}" y1="{top + 4}" y2="{top + STEP - 4}"/>'
    yield f'<text x="{WIDTH - RIGHT + 12}" y="{middle + 4}">{spread.median:.2f} x</text>'
