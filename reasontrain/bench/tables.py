"""The tables of the benchmark by name, and the selection of their cases."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

from reasontrain.bench import evaluate, grade, greedy, sample, step, tune, vocab
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
PRETRAINED: Mapping[str, Callable[[BenchMachine], Sequence[BenchCase]]] = {
    "sample": greedy.rows,
    "step": tune.rows,
    "evaluate": evaluate.pretrained_rows,
}
"""The same tables with a pre-trained model; the others run no model."""


def rows(
    names: Sequence[str], machine: BenchMachine, wanted: Sequence[str]
) -> dict[str, list[BenchCase]]:
    """The cases of the named tables.

    Args:
        names: names in `TABLES`; "all" stands for all tables whose peers are installed, and that
            run a model if the machine has one.
        machine: device and thoroughness, on which the cases depend.
        wanted: names of cases to select; empty for all.

    Returns:
        The selected cases by table.

    Raises:
        UserError: a table or a case does not exist, or a named table runs no model.
        NoPeerError: the peer of a named table is not installed.
    """
    if unknown := sorted(set(names) - {*TABLES, "all"}):
        raise UserError(
            f"there is no table {unknown[0]!r}; choose from {', '.join(TABLES)}, or all"
        )
    functions = TABLES if machine.model is None else PRETRAINED
    if without := [name for name in names if name != "all" and name not in functions]:
        raise UserError(
            f"--model: the table {without[0]} runs no model; choose from {', '.join(functions)}"
        )
    tables: dict[str, Sequence[BenchCase]] = {}
    for name in functions if "all" in names else names:
        try:
            tables[name] = functions[name](machine)
        except NoPeerError as error:
            if name in names:
                raise
            logger.warning(f"{name} is left out: {error}")
    known = {row.name for each in tables.values() for row in each}
    if missing := sorted(set(wanted) - known):
        raise UserError(
            f"there is no case {missing[0]!r} in {', '.join(tables)}; the cases are: "
            f"{', '.join(sorted(known))}"
        )
    return {
        name: [row for row in each if not wanted or row.name in wanted]
        for name, each in tables.items()
    }
