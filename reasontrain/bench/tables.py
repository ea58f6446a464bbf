"""All tables by name."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

from reasontrain.bench import evaluate, grade, sample, step, vocab
from reasontrain.bench.case import BenchCase, BenchMachine, NoPeerError
from reasontrain.types import UserError

logger = logging.getLogger(__name__)

TABLES: Mapping[str, Callable[[BenchMachine], Sequence[BenchCase]]] = {
    "vocab": vocab.rows,
    "sample": sample.rows,
    "step": step.rows,
    "grade": grade.rows,
    "evaluate": evaluate.rows,
}


def rows(
    names: Sequence[str], place: BenchMachine, wanted: Sequence[str]
) -> dict[str, list[BenchCase]]:
    """The rows of each named table, or those of them that are wanted; UserError where there is no
    such thing.

    "all" are all tables whose peers are installed; the others are told.
    """
    if unknown := sorted(set(names) - {*TABLES, "all"}):
        raise UserError(
            f"there is no table {unknown[0]!r}; there is: {', '.join(TABLES)}; or all of them: all"
        )
    tables: dict[str, Sequence[BenchCase]] = {}
    for name in TABLES if "all" in names else names:
        try:
            tables[name] = TABLES[name](place)
        except NoPeerError as error:
            if name in names:
                raise
            logger.warning(f"{name} is left out: {error}")
    there = {row.name for each in tables.values() for row in each}
    if missing := sorted(set(wanted) - there):
        raise UserError(
            f"there is no row {missing[0]!r} in {', '.join(tables)}; there is: "
            f"{', '.join(sorted(there))}"
        )
    return {
        name: [row for row in each if not wanted or row.name in wanted]
        for name, each in tables.items()
    }
