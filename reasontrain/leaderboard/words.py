"""The answer in words: which row is best in a column, what cannot be told apart from it, and what is behind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from reasontrain.leaderboard.columns import Column
from reasontrain.report.numbers import percent, points, signed_points

MAX_NAMED = 3


def verdict(column: Column, names: Mapping[str, str]) -> str:
    """One or two sentences."""
    best, *others = column.order
    figure = percent(column.cells[best].value)
    if not others:
        return f"{names[best]} reaches {figure}."
    level = [names[row] for row in column.level[1:]]
    rest = f" {_listed([names[row] for row in column.behind])} {_is_are(column.behind)} behind." if column.behind else ""
    if level:
        return f"{names[best]} has {figure}; {_listed(level)} cannot be told apart from it.{rest}"
    if not column.behind:
        return f"{names[best]} has {figure}; without answers of the others, nothing can be told."
    gap = column.apart[best, column.behind[0]]
    ahead = f"{points(gap.value)} points [{signed_points(gap.low)}, {signed_points(gap.high)}] ahead of {names[column.behind[0]]}"
    more = f" and of {len(column.behind) - 1} more" if len(column.behind) > 1 else ""
    return f"{names[best]} is best with {figure}, {ahead}{more}."


def _listed(names: Sequence[str]) -> str:
    """`a, b and c`; a long list is counted."""
    shown = list(names) if len(names) <= MAX_NAMED + 1 else [*names[:MAX_NAMED], f"{len(names) - MAX_NAMED} more"]
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else shown[0]


def _is_are(names: Sequence[str]) -> str:
    return "is" if len(names) == 1 else "are"
