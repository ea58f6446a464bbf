"""Columns of the board: a suite with its settings, a metric, and paired differences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from reasontrain.leaderboard.answers import Verdicts
from reasontrain.leaderboard.entries import Entry, Result
from reasontrain.leaderboard.fingerprint import Fingerprint, first_difference, quoted
from reasontrain.metrics.accuracy import Interval, paired_difference
from reasontrain.report.run import EvaluationRecord
from reasontrain.report.summary import metric_order, setting_text
from reasontrain.types import UserError


@dataclass(frozen=True, kw_only=True)
class ColumnGroup:
    """Results that may be compared in one column, by the slug of their row.

    `name` is that of the suite, with a number if the suite has several groups.
    """

    name: str
    suite: str
    results: Mapping[str, Result]
    fingerprint: Fingerprint

    @property
    def setting(self) -> str:
        """The settings of the evaluation in words."""
        return setting_text(next(iter(self.results.values())).evaluation)


@dataclass(frozen=True, kw_only=True)
class BoardColumn:
    """One metric of a group.

    `differences[a, b]` is row a minus row b on the same problems, if both have answers.
    """

    group: ColumnGroup
    metric: str
    cells: Mapping[str, Interval]
    differences: Mapping[tuple[str, str], Interval]

    @property
    def order(self) -> tuple[str, ...]:
        """Rows, best first."""
        return tuple(sorted(self.cells, key=lambda row: -self.cells[row].value))

    @property
    def level(self) -> tuple[str, ...]:
        """The best row, and the rows that do not differ significantly from it."""
        best, *others = self.order
        return (
            best,
            *(
                row
                for row in others
                if (best, row) in self.differences and self.differences[best, row].low <= 0
            ),
        )

    @property
    def behind(self) -> tuple[str, ...]:
        """Rows that are significantly worse than the best one."""
        best, *others = self.order
        return tuple(
            row
            for row in others
            if (best, row) in self.differences and self.differences[best, row].low > 0
        )


def columns(entries: Sequence[Entry], *, apart: bool) -> tuple[BoardColumn, ...]:
    """The columns of all suites and metrics, accuracy first.

    Results of one suite with different settings raise UserError, which names the difference; with
    `apart`, each group of equal settings gets a separate column instead.
    """
    all_columns = [column for group in _groups(entries, apart) for column in _columns(group)]
    return tuple(sorted(all_columns, key=lambda column: metric_order(column.metric)))


def _groups(entries: Sequence[Entry], apart: bool) -> Iterator[ColumnGroup]:
    """The results of each suite, grouped by fingerprint and problems."""
    names = {entry.slug: entry.name for entry in entries}
    suites = dict.fromkeys(result.evaluation.suite for entry in entries for result in entry.results)
    for suite in suites:
        groups: list[dict[str, Result]] = []
        results = [
            (entry.slug, r)
            for entry in entries
            for r in entry.results
            if r.evaluation.suite == suite
        ]
        for slug, result in results:
            faults = [_mismatch(result, group, names[slug], names) for group in groups]
            if all(faults) and groups and not apart:
                raise UserError(
                    f"suite {suite} cannot be one column: {faults[0]}. Evaluate both with the same "
                    f"settings, leave one out, or give each a column of its own with --separate"
                )
            home = next(
                (group for group, fault in zip(groups, faults, strict=True) if not fault), None
            )
            if home is None:
                groups.append(home := {})
            home[slug] = result
        for number, group in enumerate(groups, 1):
            stated = {
                key: value for result in group.values() for key, value in result.fingerprint.items()
            }
            yield ColumnGroup(
                name=suite if len(groups) == 1 else f"{suite} ({number})",
                suite=suite,
                results=group,
                fingerprint=stated,
            )


def _mismatch(
    result: Result, group: Mapping[str, Result], name: str, names: Mapping[str, str]
) -> str | None:
    """The first difference between a result and a group, as a clause; None if there is none."""
    for slug, other in group.items():
        if setting := first_difference(result.fingerprint, other.fingerprint):
            return (
                f"{setting} is {quoted(other.fingerprint[setting])} for {names[slug]} and "
                f"{quoted(result.fingerprint[setting])} for {name}"
            )
        num_problems = result.evaluation.num_problems
        num_other = other.evaluation.num_problems
        if num_problems != num_other:
            return f"{names[slug]} has {num_other:,} problems and {name} {num_problems:,}"
        if (
            result.verdicts
            and other.verdicts
            and (fault := _other_problems(result.verdicts, other.verdicts, num_problems))
        ):
            return f"{names[slug]} and {name} have different problems ({fault})"
    return None


def _other_problems(new: Verdicts, old: Verdicts, num_problems: int) -> str | None:
    """Evidence that two files of answers have different problems; None if there is none.

    A problem that did not fit a model is missing from its file.
    """
    shared = new.gold.keys() & old.gold.keys()
    for problem in sorted(shared):
        if new.gold[problem] != old.gold[problem]:
            return (
                f"the gold answer of {problem} is {old.gold[problem]!r} and {new.gold[problem]!r}"
            )
    if len(new.gold.keys() | old.gold.keys()) > num_problems:
        return f"only one has {min(new.gold.keys() ^ old.gold.keys())}"
    return None


def _columns(group: ColumnGroup) -> Iterator[BoardColumn]:
    """A column for every metric of the group's rows."""
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
            differences=_differences(metric, cells, tables, problems, group),
        )


def _differences(
    metric: str,
    cells: Mapping[str, Interval],
    tables: Mapping[str, Verdicts],
    problems: Sequence[str],
    group: ColumnGroup,
) -> dict[tuple[str, str], Interval]:
    """Row minus row for every ordered pair of rows with answers."""
    num_problems = next(iter(group.results.values())).evaluation.num_problems
    padded = (
        *problems,
        *("" for _ in range(num_problems - len(problems))),
    )  # problems that did not fit any model are wrong for all
    scores = {slug: tables[slug].scores(metric, padded) for slug in cells if slug in tables}
    gaps: dict[tuple[str, str], Interval] = {}
    for one, other in combinations(scores, 2):
        one_M = scores[one]
        other_M = scores[other]
        if one_M is None or other_M is None:
            continue
        gap = paired_difference(one_M[None], other_M[None])
        gaps[one, other] = gap
        gaps[other, one] = Interval(-gap.value, -gap.high, -gap.low)
    return gaps


def history(entries: Sequence[Entry], group: ColumnGroup) -> dict[str, list[EvaluationRecord]]:
    """All evaluations of a group's suite, for rows that were evaluated more than once."""
    by_row = {
        entry.slug: [e for e in entry.history if e.suite == group.suite]
        for entry in entries
        if entry.slug in group.results
    }
    return {slug: evaluations for slug, evaluations in by_row.items() if len(evaluations) > 1}
