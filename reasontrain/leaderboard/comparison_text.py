"""The result of a column in words: the best row, and how the other rows compare with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from reasontrain.leaderboard.columns import BoardColumn
from reasontrain.report.numbers import percent, points, signed_points

MAX_NAMED = 3


def verdict(column: BoardColumn, names: Mapping[str, str]) -> tuple[str, str]:
    """The name of the best row, and the predicate of a sentence about it."""
    best, *others = column.order
    return names[best], _predicate(
        column, names, percent(column.cells[best].value)
    ) if others else f"reaches {percent(column.cells[best].value)}."


def _predicate(column: BoardColumn, names: Mapping[str, str], figure: str) -> str:
    """One or two sentences without their subject."""
    best = column.order[0]
    level = column.level[1:]
    behind = [names[row] for row in column.behind]
    if level:
        others = _listed([names[row] for row in level])
        rest = f" {_listed(behind)} {_is(behind)} significantly worse." if behind else ""
        return f"has {figure}; {others} {_is(level)} not significantly worse.{rest}"
    if not behind:
        return f"has {figure}; the other rows have no answers, so they cannot be compared."
    gap = column.differences[best, column.behind[0]]
    more = f" and of {len(behind) - 1} more" if len(behind) > 1 else ""
    ahead = (
        f"{points(gap.value)} points [{signed_points(gap.low)}, {signed_points(gap.high)}] "
        f"ahead of {behind[0]}{more}"
    )
    return f"is best with {figure}, {ahead}."


def _is(rows: Sequence[str]) -> str:
    return "is" if len(rows) == 1 else "are"


def _listed(names: Sequence[str]) -> str:
    """Names as `a, b and c`; a long list ends in a count."""
    shown = (
        list(names)
        if len(names) <= MAX_NAMED + 1
        else [*names[:MAX_NAMED], f"{len(names) - MAX_NAMED} more"]
    )
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else shown[0]
