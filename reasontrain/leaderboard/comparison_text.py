"""The answer in words: which row is best in a column, what cannot be told apart from it, and what
is behind.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from reasontrain.leaderboard.columns import BoardColumn
from reasontrain.report.numbers import percent, points, signed_points

MAX_NAMED = 3


def verdict(column: BoardColumn, names: Mapping[str, str]) -> tuple[str, str]:
    """The name of the best row, and what is to be said of it."""
    best, *others = column.order
    return names[best], _said(
        column, names, percent(column.cells[best].value)
    ) if others else f"reaches {percent(column.cells[best].value)}."


def _said(column: BoardColumn, names: Mapping[str, str], figure: str) -> str:
    """One or two sentences without their subject."""
    best, level, behind = column.order[0], column.level[1:], [names[row] for row in column.behind]
    if level:
        rest = f" {_listed(behind)} {'is' if len(behind) == 1 else 'are'} behind." if behind else ""
        return (
            f"has {figure}; {_listed([names[row] for row in level])} cannot be told apart from "
            f"it.{rest}"
        )
    if not behind:
        return f"has {figure}; without the answers of the others, nothing can be told."
    gap = column.apart[best, column.behind[0]]
    more = f" and of {len(behind) - 1} more" if len(behind) > 1 else ""
    ahead = (
        f"{points(gap.value)} points [{signed_points(gap.low)}, {signed_points(gap.high)}] "
        f"ahead of {behind[0]}{more}"
    )
    return f"is best with {figure}, {ahead}."


def _listed(names: Sequence[str]) -> str:
    """`a, b and c`; a long list is counted."""
    shown = (
        list(names)
        if len(names) <= MAX_NAMED + 1
        else [*names[:MAX_NAMED], f"{len(names) - MAX_NAMED} more"]
    )
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else shown[0]
