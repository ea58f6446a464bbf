"""Records as a Markdown page, with a plot of the ratios of each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape

from reasontrain.bench.case import Setting
from reasontrain.bench.measure import GoalResult, Measured, SideMeasured
from reasontrain.bench.record import BenchRecord

HEAD = (
    "| case | peer | threads | time ratio | reasontrain | peer | memory ratio | resident | goals |"
)
RULE = "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"


def markdown(records: Sequence[BenchRecord], pictures: Mapping[str, str]) -> str:
    """A page of all records; `pictures` maps the name of a record to the file of its plot."""
    lines = [
        "# Benchmarks",
        "",
        "Written by `reasontrain bench`; do not edit. A time ratio is the time of reasontrain "
        "over that of the peer, in pairs of consecutive runs: median [minimum, maximum]. Below 1, "
        "reasontrain is faster; a row where it is slower, or takes more memory, says so. Memory is "
        "the peak of the memory that one run adds; resident is that peak with models, optimiser "
        "and caches (reasontrain / peer).",
        "",
    ]
    for record in records:
        lines += [*_section(record, pictures.get(record.name)), ""]
    return "\n".join(lines)


def _section(record: BenchRecord, picture: str | None) -> Iterator[str]:
    yield f"## {', '.join(filter(None, (record.table, record.device, record.model, record.dtype)))}"
    yield ""
    yield _provenance(record)
    yield ""
    if picture:
        yield f"![ratios of {record.table}]({picture})"
        yield ""
    yield from table(record)
    yield ""
    for row in record.rows:
        yield (
            f"- {_label(record, row, '`')}: {row.description}; {_settings(row.work)}, "
            f"{num_threads(row)}.{_searched(row)}{_remark(row)}"
        )


def table(record: BenchRecord) -> Iterator[str]:
    """The cases of a record as a Markdown table."""
    yield HEAD
    yield RULE
    for row in record.rows:
        cells = (
            f"`{row.name}`",
            row.peer.name,
            str(row.threads),
            _time(row),
            _speed(row, row.subject),
            _speed(row, row.peer),
            _memory(row),
            _resident(row),
            "; ".join(map(_goal, row.goals)),
        )
        yield f"| {' | '.join(cells)} |"


def ratio(row: Measured) -> str:
    """Median [minimum, maximum]."""
    spread = row.time_ratio
    return f"**{spread.median:.2f} x** [{spread.low:.2f}, {spread.high:.2f}]"


def _time(row: Measured) -> str:
    """The ratio, and a word if reasontrain is slower."""
    return f"{ratio(row)}{', slower' if round(row.time_ratio.median, 2) > 1 else ''}"


def _memory(row: Measured) -> str:
    """The ratio with both peaks, and a word if reasontrain takes more."""
    if row.memory_ratio is None or row.subject.peak_bytes is None or row.peer.peak_bytes is None:
        return ""
    more = ", more" if round(row.memory_ratio, 2) > 1 else ""
    peaks = f"{_mib(row.subject.peak_bytes)} / {_mib(row.peer.peak_bytes)}"
    return f"{row.memory_ratio:.2f} x ({peaks}){more}"


def _resident(row: Measured) -> str:
    """Resident memory of both contestants, and a word if reasontrain takes more."""
    subject = row.subject.resident_bytes
    peer = row.peer.resident_bytes
    if subject is None or peer is None:
        return ""
    return f"{_mib(subject)} / {_mib(peer)}{', more' if subject > peer else ''}"


def _speed(row: Measured, side: SideMeasured) -> str:
    """Median seconds, and units per second."""
    unit, number = row.units
    return f"{side.median:.3g} s ({number / side.median:,.0f} {unit}/s)"


def _goal(met: GoalResult) -> str:
    if met.measured is None:
        return f"{met.goal.of} {met.goal.at_most:g}: not measured"
    unit = " s" if met.goal.of == "seconds" else " x"
    return (
        f"{met.goal.of} at most {met.goal.at_most:.3g}{unit}: "
        f"{'met' if met.met else f'**missed** ({met.measured:.2f})'}"
    )


def _mib(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:,.0f} MiB"


def _settings(settings: Mapping[str, Setting]) -> str:
    return ", ".join(
        f"{name} {value:,}" if type(value) is int else f"{name} {value}"
        for name, value in settings.items()
    )


def num_threads(row: Measured) -> str:
    """The number of threads with its noun."""
    return f"{row.threads} thread{'' if row.threads == 1 else 's'}"


def _label(record: BenchRecord, row: Measured, quote: str = "") -> str:
    """The name of a case, with its threads if the record has several numbers of them."""
    name = f"{quote}{row.name}{quote}"
    several = len({each.threads for each in record.rows}) > 1
    return f"{name}, {num_threads(row)}" if several else name


def _searched(row: Measured) -> str:
    """The settings of each contestant, and the number of variants that were searched."""
    texts = [
        f" {side.name}{f', the fastest of {len(side.trials)} settings' if side.trials else ''}: "
        f"{_settings(side.settings)}."
        for side in (row.subject, row.peer)
        if side.settings
    ]
    return "".join(texts)


def _remark(row: Measured) -> str:
    return f" {row.remark}" if row.remark else ""


def _provenance(record: BenchRecord) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in record.versions.items())
    changed = " with changes" if record.origin.changed else ""
    quick = (
        " Quick: fewer runs and settings, and less work in some cases; the goals are those of a "
        "full run."
        if record.quick
        else ""
    )
    return (
        f"{record.origin.hardware}; commit {record.origin.commit[:7]}{changed}; {packages}; "
        f"{record.runs} runs of each contestant.{quick}"
    )


Scale = Callable[[float], float]
WIDTH = 760
LEFT = 190
"""Pixels left of the axis, for names."""
RIGHT = 90
"""Pixels right of the axis, for figures."""
STEP = 34
"""Pixels from one case to the next."""
TOP = 40
STYLE = (
    "text{font:13px "
    "ui-sans-serif,system-ui,sans-serif;fill:#18181c}.soft{fill:#5d5d68}line{stroke:#d4d4d2}"
    ".one{stroke:#5d5d68}.fast{fill:#1f5fa8}.slow{fill:#c2551a}"
    ".spread{stroke:#18181c;stroke-width:1.5}.goal{stroke:#2f7d54;stroke-width:2}"
    "@media(prefers-color-scheme:dark){text{fill:#ececf0}.soft{fill:#a3a3ad}line{stroke:#303238}"
    ".one{stroke:#a3a3ad}.fast{fill:#7ab4f5}.slow{fill:#f0915a}.spread{stroke:#ececf0}"
    ".goal{stroke:#6fc79a}}"
)


def picture(record: BenchRecord) -> str:
    """The time ratios as an SVG: one bar per case, from 1 to its ratio; a green mark is the goal.

    Bars to the left are faster than the peer. The axis is logarithmic, so that twice as fast is as
    long as twice as slow.
    """
    ends = [end for row in record.rows for end in (row.time_ratio.low, row.time_ratio.high)]
    low = min([0.25, *ends])
    high = max([2.0, *ends])

    def across(value: float) -> float:
        share = (math.log(value) - math.log(low)) / (math.log(high) - math.log(low))
        return round(LEFT + min(max(share, 0.0), 1.0) * (WIDTH - LEFT - RIGHT), 1)

    height = TOP + STEP * len(record.rows) + 12
    label = "; ".join(
        f"{_label(record, row)} {row.time_ratio.median:.2f} times the time of {row.peer.name}"
        for row in record.rows
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'role="img" aria-label="{escape(label)}">',
        f"<style>{STYLE}</style>",
        f'<text class="soft" x="{LEFT}" y="16">time ratio, reasontrain / peer '
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
        parts += _bar(row, _label(record, row), across, TOP + STEP * index)
    return "\n".join([*parts, "</svg>", ""])


def _bar(row: Measured, label: str, across: Scale, top: int) -> Iterator[str]:
    """One case: name, bar, spread, goal and ratio."""
    spread = row.time_ratio
    middle = top + STEP / 2
    left, right = sorted((across(spread.median), across(1.0)))
    kind = "fast" if spread.median <= 1 else "slow"
    yield f'<text x="{LEFT - 10}" y="{middle + 4}" text-anchor="end">{escape(label)}</text>'
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
