"""The columns: a suite asked in one way, one metric, and how far rows lie apart, paired over its
problems.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from reasontrain.leaderboard.answers import Verdicts
from reasontrain.leaderboard.entries import Entry, Result
from reasontrain.leaderboard.fingerprint import Protocol, quoted, unlike
from reasontrain.metrics.accuracy import Interval, paired_difference
from reasontrain.report.run import EvaluationRecord
from reasontrain.report.summary import metric_order, setting_text
from reasontrain.types import UserError


@dataclass(frozen=True, kw_only=True)
class ColumnGroup:
    """Results that may stand in one column, by the slug of their row; `name` is the suite's,
    numbered where it has several.
    """

    name: str
    suite: str
    results: Mapping[str, Result]
    protocol: Protocol

    @property
    def setting(self) -> str:
        """How it was asked, in words."""
        return setting_text(next(iter(self.results.values())).evaluation)


@dataclass(frozen=True, kw_only=True)
class BoardColumn:
    """One metric of a group.

    `apart[a, b]` is row a less row b over the same problems, where their answers were kept.

    `order` holds the rows, best first; `level` those that cannot be told apart from the first one,
    which is among them.
    """

    group: ColumnGroup
    metric: str
    cells: Mapping[str, Interval]
    apart: Mapping[tuple[str, str], Interval]

    @property
    def order(self) -> tuple[str, ...]:
        """Rows, best first."""
        return tuple(sorted(self.cells, key=lambda row: -self.cells[row].value))

    @property
    def level(self) -> tuple[str, ...]:
        """The best row, and rows whose difference from it may be none."""
        best, *others = self.order
        return (
            best,
            *(
                row
                for row in others
                if (best, row) in self.apart and self.apart[best, row].low <= 0
            ),
        )

    @property
    def behind(self) -> tuple[str, ...]:
        """Rows that are worse than the best one."""
        best, *others = self.order
        return tuple(
            row for row in others if (best, row) in self.apart and self.apart[best, row].low > 0
        )


def columns(entries: Sequence[Entry], *, apart: bool) -> tuple[BoardColumn, ...]:
    """Every suite and metric that a row has, accuracy first.

    Results of one suite that were asked differently are refused, with the difference named; `apart`
    gives each way a column of its own instead.
    """
    found = [column for group in _groups(entries, apart) for column in _columns(group)]
    return tuple(sorted(found, key=lambda column: metric_order(column.metric)))


def _groups(entries: Sequence[Entry], apart: bool) -> Iterator[ColumnGroup]:
    """The results of each suite that agree in their protocol and their problems."""
    names = {entry.slug: entry.name for entry in entries}
    suites = dict.fromkeys(result.evaluation.suite for entry in entries for result in entry.results)
    for suite in suites:
        ways: list[dict[str, Result]] = []
        results = [
            (entry.slug, r)
            for entry in entries
            for r in entry.results
            if r.evaluation.suite == suite
        ]
        for slug, result in results:
            faults = [_unlike(result, way, names[slug], names) for way in ways]
            if all(faults) and ways and not apart:
                raise UserError(
                    f"suite {suite} cannot be one column: {faults[0]}. Evaluate both in "
                    f"the same way, leave one of them out, or "
                    "use --separate to give them columns of their own"
                )
            home = next((way for way, fault in zip(ways, faults, strict=True) if not fault), None)
            if home is None:
                ways.append(home := {})
            home[slug] = result
        for number, way in enumerate(ways, 1):
            stated = {
                key: value for result in way.values() for key, value in result.protocol.items()
            }
            yield ColumnGroup(
                name=suite if len(ways) == 1 else f"{suite} ({number})",
                suite=suite,
                results=way,
                protocol=stated,
            )


def _unlike(
    result: Result, way: Mapping[str, Result], name: str, names: Mapping[str, str]
) -> str | None:
    """In what a result differs from those of a column, as a clause of a sentence; None where it is
    like all of them.
    """
    for slug, other in way.items():
        ours, theirs = result.protocol, other.protocol
        if what := unlike(ours, theirs):
            return (
                f"{what} is {quoted(theirs[what])} for {names[slug]} and {quoted(ours[what])} "
                f"for {name}"
            )
        asked, before = result.evaluation.num_problems, other.evaluation.num_problems
        if asked != before:
            return f"{names[slug]} was asked {before:,} problems and {name} {asked:,}"
        if (
            result.verdicts
            and other.verdicts
            and (fault := _other_problems(result.verdicts, other.verdicts, asked))
        ):
            return f"{names[slug]} and {name} were asked different problems ({fault})"
    return None


def _other_problems(ours: Verdicts, theirs: Verdicts, num_problems: int) -> str | None:
    """A sign that two files of answers are not of the same problems.

    What a model could not take in is missing from its file.
    """
    shared = ours.gold.keys() & theirs.gold.keys()
    for problem in sorted(shared):
        if ours.gold[problem] != theirs.gold[problem]:
            return (
                f"the gold answer of {problem} is {theirs.gold[problem]!r} and "
                f"{ours.gold[problem]!r}"
            )
    if len(ours.gold.keys() | theirs.gold.keys()) > num_problems:
        return f"only one has {min(ours.gold.keys() ^ theirs.gold.keys())}"
    return None


def _columns(group: ColumnGroup) -> Iterator[BoardColumn]:
    """Every metric that a row of the group has."""
    tables = {slug: result.verdicts for slug, result in group.results.items() if result.verdicts}
    problems = tuple(dict.fromkeys(problem for table in tables.values() for problem in table.gold))
    for metric in dict.fromkeys(
        name for result in group.results.values() for name in result.evaluation.metrics
    ):
        cells = {
            s: r.evaluation.metrics[metric]
            for s, r in group.results.items()
            if metric in r.evaluation.metrics
        }
        yield BoardColumn(
            group=group,
            metric=metric,
            cells=cells,
            apart=_apart(metric, cells, tables, problems, group),
        )


def _apart(
    metric: str,
    cells: Mapping[str, Interval],
    tables: Mapping[str, Verdicts],
    problems: Sequence[str],
    group: ColumnGroup,
) -> dict[tuple[str, str], Interval]:
    """Row less row, for every pair, both ways round."""
    num_asked = next(iter(group.results.values())).evaluation.num_problems
    padded = (
        *problems,
        *("" for _ in range(num_asked - len(problems))),
    )  # what no model could take in: wrong for all
    scores = {slug: tables[slug].scores(metric, padded) for slug in cells if slug in tables}
    found: dict[tuple[str, str], Interval] = {}
    for one, other in combinations(scores, 2):
        one_M, other_M = scores[one], scores[other]
        if one_M is None or other_M is None:
            continue
        gap = paired_difference(one_M[None], other_M[None])
        found[one, other], found[other, one] = gap, Interval(-gap.value, -gap.high, -gap.low)
    return found


def course(entries: Sequence[Entry], group: ColumnGroup) -> dict[str, list[EvaluationRecord]]:
    """The evaluations of a suite on the way, of the rows of a group that were evaluated more than
    once.
    """
    by_row = {
        entry.slug: [e for e in entry.course if e.suite == group.suite]
        for entry in entries
        if entry.slug in group.results
    }
    return {slug: found for slug, found in by_row.items() if len(found) > 1}
