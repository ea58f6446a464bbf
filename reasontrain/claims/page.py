"""Records of claims as Markdown: one table of verdicts, and for each row what it rests on, the
sweep included.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from reasontrain.claims.settings import Accuracy, ClaimRow, PassAt, Saving
from reasontrain.claims.verdict import ArmRecord, ClaimRecord
from reasontrain.metrics.accuracy import Interval
from reasontrain.types import UserError

BEGIN, END = "<!-- claims: written by `make claims`, never by hand -->", "<!-- end of claims -->"
_BETWEEN = re.compile(f"{re.escape(BEGIN)}\n.*?{re.escape(END)}", re.DOTALL)


def with_table(page: Path, table: str) -> str:
    """The page with the table between its markers; UserError where it has none."""
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    if not _BETWEEN.search(text):
        raise UserError(
            f"{page} has no place for the table: it needs the lines {BEGIN!r} and {END!r}, "
            f"in this order"
        )
    return _BETWEEN.sub(lambda _: f"{BEGIN}\n{table}{END}", text)


def markdown(records: Sequence[ClaimRecord], missing: Sequence[str]) -> str:
    """The table and its rows; `missing` names rows without a record of what they say now."""
    lines = (
        ["", "| row | claim | difference, points [95 %] | verdict |", "| --- | --- | --- | --- |"]
        if records
        else [""]
    )
    lines += [
        f"| `{r.name}` | {r.row.paper}: {r.row.claim} | {_difference(r.row)}: "
        f"{_points(r.difference)} | *{r.verdict}* |"
        for r in records
    ]
    if missing:
        lines += [
            "",
            "Without a record of what they say now: "
            + ", ".join(f"`{name}`" for name in missing)
            + ".",
        ]
    for record in records:
        lines += ["", *_row(record)]
    return "\n".join([*lines, "", ""])


def _row(record: ClaimRecord) -> Iterator[str]:
    """One row in full."""
    row, of = record.row, record.row.difference.of
    seeds, rates = (
        ", ".join(map(str, row.seeds)),
        [f"{swept.rate:g}" for swept in record.arms[0].sweep],
    )
    yield f"### `{record.name}`: *{record.verdict}*"
    yield ""
    yield (
        f"{row.paper}: {row.claim}. {_measure(row)} of {record.num_problems:,} held-out "
        f"problems, {record.steps} steps, "
        f"seeds {seeds}. Rates are chosen by the accuracy on `{row.development}`. {_made(record)}"
    )
    yield ""
    yield (
        f"| arm | development at {' / '.join(rates)} | rate | held out | `{of}` less it | "
        f"tokens trained on / sampled |"
    )
    yield "| --- | --- | --- | --- | --- | --- |"
    for arm in record.arms:
        yield _arm(arm)


def _arm(arm: ArmRecord) -> str:
    swept = " / ".join(f"{100 * s.mean:.1f}" for s in arm.sweep)
    behind = "" if arm.behind is None else _points(arm.behind)
    held = f"{100 * sum(arm.scores) / len(arm.scores):.1f}"
    return (
        f"| `{arm.name}` | {swept} | {arm.rate:g} | {held} | {behind} | "
        f"{arm.trained_tokens:,.0f} / {arm.sampled_tokens:,.0f} |"
    )


def _made(record: ClaimRecord) -> str:
    """Which code ran on what, and how long."""
    found = []
    for made in record.made:
        code = f"commit {made.origin.commit[:7]}" + (" with changes" if made.origin.changed else "")
        packages = ", ".join(
            f"{name} {made.versions[name]}"
            for name in ("torch", "transformers")
            if name in made.versions
        )
        found.append(f"{code}, {made.device} ({made.origin.hardware}), {packages}")
    return f"{'; '.join(found)}; {record.minutes:.0f} minutes, {record.at_once} runs at a time."


def _difference(row: ClaimRow) -> str:
    return f"`{row.difference.of}` \N{MINUS SIGN} `{row.difference.minus}`"


def _measure(row: ClaimRow) -> str:
    """What is measured, in words."""
    match row.measure:
        case Accuracy(suite=suite):
            return f"Accuracy on `{suite}`"
        case PassAt(suite=suite, k=k):
            return f"pass@{k} on `{suite}`"
        case Saving(suite=suite):
            return (
                f"Share of the trained tokens saved on the way to an accuracy on `{suite}` "
                f"that both arms reach"
            )


def _points(interval: Interval) -> str:
    return f"{100 * interval.value:+.1f} [{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]"
