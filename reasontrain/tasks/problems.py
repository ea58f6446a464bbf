"""Rows of a table become problems: which column is the question, which the gold answer, what is
said to the model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, cast, overload

from reasontrain.data.files import Columns, Row, Table, text
from reasontrain.types import Message, Problem, UserError

BOXED = "Please reason step by step, and put your final answer within \\boxed{}."
"""The usual instruction after a mathematical problem."""

Part = Literal["problem", "answer", "solution", "id", "messages"]

USUAL: Mapping[Part, tuple[str, ...]] = {
    "problem": ("problem", "question", "prompt"),
    "answer": ("answer", "final_answer", "expected_answer"),
    "solution": ("solution",),
    "id": ("id", "unique_id", "problem_id"),
    "messages": ("messages",),
}
"""Column names that are looked for where the recipe names none."""

JOINED: Mapping[Part, str] = {"answer": ", ", "solution": "\n\n"}
"""What stands between the texts of a cell that holds several."""

Split = Callable[[str, str], tuple[str, str]]
"""(answer cell, solution cell) -> (gold answer, solution): how a data set writes the two."""


class GeneratedProblems(Sequence[Problem]):
    """Problems that are functions of their index: each is made when it is read, and not kept.

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
    """One problem per row, ids unique, its answer "" where the row has none.

    Raises UserError for a column that is not there, a problem without text or a repeated id.
    """
    parts = _parts(table, columns)
    found: dict[str, Problem] = {}
    for index, row in enumerate(table.rows):
        where = table.where(index)
        problem = _problem(
            row, parts, where, default_id=str(index), instruction=instruction, split=split
        )
        if problem.id in found:
            raise UserError(f"{where}: id {problem.id!r} occurs a second time; ids must be unique")
        found[problem.id] = problem
    return list(found.values())


def _parts(table: Table, columns: Columns) -> dict[Part, str]:
    """The column of each part: those that the user named, and by their usual names those that play
    no part yet.
    """
    named = {part: table.require(column) for part, column in columns.given()}
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
    """The turns up to the last user turn, with the instruction; and what the assistant said to it
    ("" where nothing).
    """
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
    reply = messages.pop()["content"] if messages[-1]["role"] == "assistant" else ""
    if not messages or messages[-1]["role"] != "user":
        raise UserError(
            f"{where}: the conversation in column {column!r} should end with a user turn, "
            f"or with the reply to one"
        )
    messages[-1] = Message(role="user", content=_with(messages[-1]["content"], instruction))
    return tuple(messages), reply


def _with(problem: str, instruction: str) -> str:
    return f"{problem}\n{instruction}" if instruction else problem
