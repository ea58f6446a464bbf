"""Conversion of a table's rows to problems: the columns of each part, and the prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import cast, overload

from reasontrain.data.files import BadRows, Row, RowError, Source, refuse, report_dropped, usable
from reasontrain.data.rows import (
    Part,
    about_of,
    answer_of,
    check_unique,
    check_unrated,
    exchange_of,
    extras_of,
    id_of,
    layout_of,
)
from reasontrain.types import Message, Problem, UserError, text_of

BOXED = "Please reason step by step, and put your final answer within \\boxed{}."
"""The default instruction after a mathematical problem."""

Split = Callable[[str, str], tuple[str, str]]
"""Convert (answer cell, solution cell) of a data set to (gold answer, solution)."""


class GeneratedProblems(Sequence[Problem]):
    """Problems that are functions of their index, each generated when it is read and not stored.

    A slice is a list of the problems in it.
    """

    def __init__(self, generate: Callable[[int], Problem], num: int) -> None:
        self._generate = generate
        self._indices = range(num)

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, index: int) -> Problem: ...

    @overload
    def __getitem__(self, index: slice) -> list[Problem]: ...

    def __getitem__(self, index: int | slice) -> Problem | list[Problem]:
        if isinstance(index, slice):
            return [self._generate(i) for i in self._indices[index]]
        return self._generate(self._indices[index])


def problems_of(
    source: Source, *, instruction: str | None, default_instruction: str = "", split: Split
) -> list[Problem]:
    """Convert every row of a source to a problem (see `problems_with_rows`)."""
    return [
        problem
        for problem, _ in problems_with_rows(
            source, instruction=instruction, default_instruction=default_instruction, split=split
        )
    ]


def problems_with_rows(
    source: Source, *, instruction: str | None, default_instruction: str = "", split: Split
) -> list[tuple[Problem, Row]]:
    """Convert every row of a source to a problem.

    Args:
        source: the file or data set, with the columns that the user named.
        instruction: text to append to every prompt; None appends `default_instruction` to problems
            that are texts, and leaves conversations as they are.
        default_instruction: see `instruction`.
        split: converts the data set's answer and solution cells to gold answer and solution.

    Returns:
        One problem per row that can be used, with unique ids and with the answer "" if the row has
        none, and its row.

    Raises:
        UserError: a column is missing; or a row cannot be used, and `source.bad_rows` is "refuse".
    """
    unreadable: list[RowError] = []
    table = source.table(refuse if source.bad_rows == "refuse" else unreadable.append)
    layout = layout_of(table, cast(dict[Part, str], dict(source.columns.named())))
    check_unrated(table, layout)
    ids: dict[str, str] = {}

    def read(index: int) -> tuple[Problem, Row]:
        row = table.rows[index]
        where = table.where(index)
        exchange = exchange_of(row, layout, where)
        cells = answer_of(row, layout, where), exchange.text
        answer, solution = split(*cells)
        prompt = _instructed(exchange.prompt, instruction, default_instruction)
        problem = replace(
            extras_of(row, layout, where),
            id=id_of(row, layout, index, where),
            prompt=prompt,
            answer=answer if answer.strip() else "",
            solution=solution,
            reply=exchange.reply,
            learn_history=exchange.has_history,
            source=where,
            about=about_of(row, layout.used),
        )
        check_unique(ids, problem.id, where)
        return problem, row

    return usable(table, read, source.bad_rows, unreadable)


def with_parts(
    problems: Sequence[Problem], *, bad_rows: BadRows, answer: bool, solution: bool
) -> Sequence[Problem]:
    """The problems that have what a run needs of them.

    Args:
        problems: problems of one task.
        bad_rows: "refuse" makes a problem without a part an error, "drop" drops and counts it.
        answer: a gold answer is needed.
        solution: a demonstration is needed.

    Returns:
        The problems, all of them unless some are dropped.

    Raises:
        UserError: a part is missing and is not dropped, or no problem has all parts.
    """
    if isinstance(problems, GeneratedProblems):
        return problems
    errors: list[RowError] = []
    kept: list[Problem] = []
    for problem in problems:
        missing = _missing_part(problem, answer=answer, solution=solution)
        if missing is None:
            kept.append(problem)
        else:
            errors.append(RowError(f"{problem.where} {missing}"))
    if errors and bad_rows == "refuse":
        raise UserError(
            f"{errors[0]} ({len(errors)} of {len(problems)} rows have none); add it, name its "
            f"column under `task.columns`, or set `task.bad_rows: drop`"
        )
    report_dropped("the data", errors, len(kept))
    return kept


def check_no_pairs(source: Source, problems: Sequence[Problem]) -> None:
    """Refuse preference pairs where replies are to be learned, and name the kind that reads them.

    Args:
        source: the file or data set.
        problems: its problems.

    Raises:
        UserError: no problem has a reply, and the source has both sides of pairs.
    """
    if any(problem.solution.strip() or problem.reply for problem in problems):
        return
    table = source.table(lambda error: None)
    if table.has("chosen") and table.has("rejected"):
        raise UserError(
            f"{table.source} holds preference pairs (columns 'chosen' and 'rejected'); read them "
            f"with `task.kind: pairs`"
        )


def _missing_part(problem: Problem, *, answer: bool, solution: bool) -> str | None:
    if answer and not problem.answer.strip():
        return "has no gold answer, which grading needs"
    if solution and not problem.solution.strip() and not problem.reply:
        needed = "which a recipe without `sample` needs"
        if isinstance(problem.prompt, tuple) and len(problem.prompt) > 1:
            last = problem.prompt[-1]["role"]
            return f"ends with a turn of the {last} and has no reply to it to learn from, {needed}"
        return f"has no solution (a reply to learn from), {needed}"
    return None


def _instructed(
    prompt: str | tuple[Message, ...], instruction: str | None, default: str
) -> str | tuple[Message, ...]:
    """The prompt with the instruction after its text, or after the text of its last user turn."""
    if isinstance(prompt, str):
        added = default if instruction is None else instruction
        return f"{prompt}\n{added}" if added else prompt
    if not instruction:
        return prompt
    last = max(i for i, turn in enumerate(prompt) if turn["role"] == "user")
    turn = {**prompt[last], "content": f"{text_of(prompt[last])}\n{instruction}"}
    return (*prompt[:last], turn, *prompt[last + 1 :])
