"""Conversion of a table's rows to problems: the columns of each part, and the prompt."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, cast, overload

from reasontrain.data.files import Columns, Row, Table, text
from reasontrain.types import Message, Problem, UserError, text_of

BOXED = "Please reason step by step, and put your final answer within \\boxed{}."
"""The default instruction after a mathematical problem."""

Part = Literal["problem", "answer", "solution", "id", "messages"]

USUAL: Mapping[Part, tuple[str, ...]] = {
    "problem": ("problem", "question", "prompt"),
    "answer": ("answer", "final_answer", "expected_answer"),
    "solution": ("solution",),
    "id": ("id", "unique_id", "problem_id"),
    "messages": ("messages",),
}
"""Column names to look for, in this order, if the recipe names none."""

JOINED: Mapping[Part, str] = {"answer": ", ", "solution": "\n\n"}
"""Separators for cells that hold a list of texts."""

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


def problems_of(table: Table, columns: Columns, *, instruction: str, split: Split) -> list[Problem]:
    """Convert every row to a problem.

    Args:
        table: the rows.
        columns: the columns that the user named.
        instruction: text to append to every prompt.
        split: converts the data set's answer and solution cells to gold answer and solution.

    Returns:
        One problem per row, with unique ids, and with the answer "" if the row has none.

    Raises:
        UserError: a column is missing, a problem has no text, or an id is repeated.
    """
    parts = _parts(table, columns)
    by_id: dict[str, Problem] = {}
    for index, row in enumerate(table.rows):
        where = table.where(index)
        problem = _problem(
            row, parts, where, default_id=str(index), instruction=instruction, split=split
        )
        if problem.id in by_id:
            raise UserError(f"{where}: id {problem.id!r} occurs more than once; ids must be unique")
        by_id[problem.id] = problem
    return list(by_id.values())


def _parts(table: Table, columns: Columns) -> dict[Part, str]:
    """Find the column of each part: by the user's names first, then by the usual names."""
    named = {part: table.require(column) for part, column in columns.named()}
    wanted = [
        part
        for part in USUAL
        if part not in named and not (part == "problem" and "messages" in named)
    ]
    usual = {
        part: table.find([name for name in USUAL[part] if name not in named.values()])
        for part in wanted
    }
    parts = cast(
        dict[Part, str],
        {**{part: column for part, column in usual.items() if column is not None}, **named},
    )
    if "problem" not in parts and "messages" not in parts:
        tried = ", ".join((*USUAL["problem"], *USUAL["messages"]))
        has = ", ".join(table.names)
        hint = f"name it, as in columns: {{problem: {table.names[0]}}}"
        raise UserError(
            f"{table.source} has no column for the problem (looked for: {tried}; it has: "
            f"{has}); {hint}"
        )
    return parts


def _problem(
    row: Row,
    parts: Mapping[Part, str],
    where: str,
    *,
    default_id: str,
    instruction: str,
    split: Split,
) -> Problem:
    def cell(part: Part) -> str:
        value = row.get(parts[part]) if part in parts else ""
        if (
            part in JOINED
            and isinstance(value, list)
            and all(isinstance(each, str) for each in value)
        ):
            value = JOINED[part].join(value)
        return "" if value is None else text(value, column=parts.get(part, part), where=where)

    answer, solution = split(cell("answer"), cell("solution"))
    prompt: str | tuple[Message, ...]
    if "messages" in parts and "problem" not in parts:
        prompt, reply = _conversation(
            row.get(parts["messages"]), parts["messages"], where, instruction
        )
        solution = solution or reply
    else:
        if not cell("problem").strip():
            raise UserError(
                f"{where}: column {parts['problem']!r} is empty; expected the problem's text"
            )
        prompt = _with(cell("problem"), instruction)
    used = set(parts.values())
    about = {
        name: str(value)
        for name, value in row.items()
        if name not in used and isinstance(value, str | int | float)
    }
    return Problem(
        id=cell("id") or default_id,
        prompt=prompt,
        answer=answer if answer.strip() else "",
        solution=solution,
        about=about,
    )


def _conversation(
    value: object, column: str, where: str, instruction: str
) -> tuple[tuple[Message, ...], str]:
    """Return the turns up to the last user turn, with the instruction, and the reply to it."""
    turns = value if isinstance(value, list) else []
    if not turns or not all(
        isinstance(turn, dict)
        and isinstance(turn.get("role"), str)
        and isinstance(turn.get("content"), str)
        for turn in turns
    ):
        raise UserError(
            f"{where}: column {column!r} should hold a list of {{role, content}} objects"
        )
    messages = [Message(role=turn["role"], content=turn["content"]) for turn in turns]
    reply = text_of(messages.pop()) if messages[-1]["role"] == "assistant" else ""
    if not messages or messages[-1]["role"] != "user":
        raise UserError(
            f"{where}: the conversation in column {column!r} should end with a user turn, "
            f"or with the reply to one"
        )
    messages[-1] = Message(role="user", content=_with(text_of(messages[-1]), instruction))
    return tuple(messages), reply


def _with(problem: str, instruction: str) -> str:
    return f"{problem}\n{instruction}" if instruction else problem
