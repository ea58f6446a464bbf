"""Records of claims as Markdown: a table of verdicts, and the measurements of each row."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from reasontrain.claims.settings import Accuracy, ClaimRow, PassAt, Saving
from reasontrain.claims.verdict import ArmRecord, ClaimRecord
from reasontrain.metrics.accuracy import Interval
from reasontrain.types import UserError

BEGIN = "<!-- claims: written by `make claims`, never by hand -->"
END = "<!-- end of claims -->"
_BETWEEN = re.compile(f"{re.escape(BEGIN)}\n.*?{re.escape(END)}", re.DOTALL)


def with_table(page: Path, table: str) -> str:
    """The page with `table` between its markers; raise UserError if the page has no markers."""
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    if not _BETWEEN.search(text):
        raise UserError(
            f"{page} has no markers for the table: add the lines {BEGIN!r} and {END!r}, in this "
            f"order"
        )
    return _BETWEEN.sub(lambda _: f"{BEGIN}\n{table}{END}", text)


def markdown(records: Sequence[ClaimRecord], missing: Sequence[str]) -> str:
    """The table, and the details of its rows; `missing` names rows without a current record."""
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
            "Without a current record: " + ", ".join(f"`{name}`" for name in missing) + ".",
        ]
    for record in records:
        lines += ["", *_row(record)]
    return "\n".join([*lines, "", ""])


def _row(record: ClaimRecord) -> Iterator[str]:
    """The section of a row, with the measurements of its arms."""
    row = record.row
    seeds = ", ".join(map(str, row.seeds))
    rates = [f"{swept.rate:g}" for swept in record.arms[0].sweep]
    yield f"### `{record.name}`: *{record.verdict}*"
    yield ""
    yield (
        f"{row.paper}: {row.claim}. {_measure(row)} of {record.num_problems:,} held-out "
        f"problems, {record.steps} steps, "
        f"seeds {seeds}. Rates are chosen by the accuracy on `{row.development}`. "
        f"{_provenance(record)}"
    )
    yield ""
    yield (
        f"| arm | development at {' / '.join(rates)} | rate | held out | "
        f"`{row.difference.of}` minus this arm | "
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


def _provenance(record: ClaimRecord) -> str:
    """Code, hardware, packages and time of the runs, in words."""
    texts = []
    for provenance in record.provenances:
        code = f"commit {provenance.origin.commit[:7]}" + (
            " with changes" if provenance.origin.changed else ""
        )
        packages = ", ".join(
            f"{name} {provenance.versions[name]}"
            for name in ("torch", "transformers")
            if name in provenance.versions
        )
        texts.append(f"{code}, {provenance.device} ({provenance.origin.hardware}), {packages}")
    return f"{'; '.join(texts)}; {record.minutes:.0f} minutes, {record.at_once} runs at a time."


def _difference(row: ClaimRow) -> str:
    return f"`{row.difference.of}` \N{MINUS SIGN} `{row.difference.minus}`"


def _measure(row: ClaimRow) -> str:
    """The measure, in words."""
    match row.measure:
        case Accuracy(suite=suite):
            return f"Accuracy on `{suite}`"
        case PassAt(suite=suite, k=k):
            return f"pass@{k} on `{suite}`"
        case Saving(suite=suite):
            return (
                f"Share of the trained tokens saved until an accuracy on `{suite}` that both arms "
                f"reach"
            )


def _points(interval: Interval) -> str:
    return f"{100 * interval.value:+.1f} [{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]"
