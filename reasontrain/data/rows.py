"""Rows -> prompts and replies, in the formats in which data sets are published.

One reader for all tasks: TRL, verl, OpenRLHF, Open-R1, ShareGPT, Alpaca, GSM8K and MATH.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from reasontrain.data.conversations import (
    is_conversation,
    reply_text,
    split_reply,
    tools_of,
    turns_of,
)
from reasontrain.data.files import Row, RowError, Table, cell, present, shown, text
from reasontrain.types import Message, Problem, UserError, listed

Part = Literal[
    "problem",
    "input",
    "messages",
    "solution",
    "answer",
    "id",
    "system",
    "history",
    "tools",
    "loss_weight",
    "template_kwargs",
]
"""A part of a row: the prompt is `problem` (continued by Alpaca's `input`) or `messages`."""

USUAL: Mapping[Part, tuple[str, ...]] = {
    "problem": ("problem", "question", "prompt", "instruction", "query", "input"),
    "input": ("input",),
    "messages": ("messages", "conversations", "conversation"),
    "solution": ("solution", "response", "completion", "output"),
    "answer": (
        "answer",
        "final_answer",
        "expected_answer",
        "reward_model.ground_truth",
        "ground_truth",
    ),
    "id": ("id", "unique_id", "problem_id"),
    "system": ("system", "system_prompt"),
    "history": ("history",),
    "tools": ("tools",),
    "loss_weight": ("loss_weight",),
    "template_kwargs": ("chat_template_kwargs",),
}
"""Column names to look for, in this order, if the recipe names none."""

JOINED: Mapping[str, str] = {"answer": ", ", "solution": "\n\n"}
"""Separators for parts that hold a list of texts."""


@dataclass(frozen=True)
class Layout:
    """The column of each part of a table's rows."""

    columns: Mapping[Part, str]

    @property
    def used(self) -> frozenset[str]:
        """Top-level columns that hold a part."""
        nested = {column.partition(".")[0] for column in self.columns.values()}
        return frozenset(nested | set(self.columns.values()))

    def column(self, part: Part) -> str:
        """The column of a part, for error messages."""
        return self.columns.get(part, part)

    def value(self, row: Row, part: Part) -> object:
        """The cell of a part; None if the table or the row has none."""
        column = self.columns.get(part)
        return None if column is None else cell(row, column)


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """A prompt and the reply to it as a row states them.

    Attributes:
        prompt: text or turns.
        text: the reply as text; "" if there is none.
        reply: the reply as turns; () if the row states it as text.
        has_history: the prompt holds replies of the same written conversation.
    """

    prompt: str | tuple[Message, ...]
    text: str = ""
    reply: tuple[Message, ...] = ()
    has_history: bool = False


def layout_of(
    table: Table,
    named: Mapping[Part, str],
    *,
    prefer_messages: bool = False,
    needs_prompt: bool = True,
    responses: bool = True,
) -> Layout:
    """Find the column of each part: by the user's names first, then by the usual names.

    Args:
        table: the rows.
        named: the columns that the user named.
        prefer_messages: a conversation wins over a problem unless there is a response, as for
            Open-R1's rows, whose `solution` is a short one. Otherwise a problem with an answer or a
            solution wins.
        needs_prompt: raise if there is neither a problem nor a conversation.
        responses: look for a solution or response.

    Returns:
        The columns; never both `problem` and `messages`.

    Raises:
        UserError: a named column or the prompt is missing.
    """
    columns: dict[Part, str] = {part: table.require(column) for part, column in named.items()}
    for part, names in USUAL.items():
        if part not in columns and (responses or part != "solution"):
            free = [name for name in names if name not in columns.values()]
            column = table.find(free)
            if column is not None:
                columns[part] = column
    if columns.get("problem") == columns.get("input"):
        columns.pop("input", None)
    elif "instruction" not in (columns.get("problem"), named.get("problem")):
        # `input` continues an instruction; beside any other problem it is a column of its own.
        columns.pop("input", None)
    if "problem" in columns and "messages" in columns:
        is_stated = (
            columns.get("solution", "solution") != "solution"
            if prefer_messages
            else "solution" in columns or "answer" in columns
        )
        by_problem = "problem" in named or ("messages" not in named and is_stated)
        columns.pop("messages" if by_problem else "problem")
    if "messages" in columns:
        columns.pop("input", None)
    if needs_prompt and "problem" not in columns and "messages" not in columns:
        tried = ", ".join((*USUAL["problem"], *USUAL["messages"]))
        raise UserError(
            f"{table.source} has no column for the problem (looked for: {tried}; it has: "
            f"{listed(table.nested_names)}); name it, as in columns: {{problem: "
            f"{(table.names or ('text',))[0]}}}"
        )
    return Layout(columns)


def check_unrated(table: Table, layout: Layout) -> None:
    """Refuse responses that are rated right or wrong, as in TRL's unpaired preferences (KTO)."""
    ratings = [row["label"] for row in table.rows if row.get("label") is not None]
    is_response = layout.columns.get("solution", "solution") != "solution"
    if is_response and ratings and all(isinstance(rating, bool) for rating in ratings):
        raise UserError(
            f"{table.source} holds rated responses (column 'label' is true or false), and those "
            f"rated false are not to be learned; keep the rows rated true and remove the column"
        )


def exchange_of(row: Row, layout: Layout, where: str, *, images: bool = False) -> Exchange:
    """The prompt and the reply of a row.

    Args:
        row: the record.
        layout: the columns of its parts.
        where: its file and line, for error messages.
        images: accept images among the parts of a turn.

    Returns:
        The prompt with the row's system turn and history, and the reply if the row has one.

    Raises:
        RowError: the row has no prompt, or a part of it cannot be used.
    """
    solution = layout.value(row, "solution")
    prompt: str | tuple[Message, ...]
    reply: tuple[Message, ...] = ()
    if "messages" in layout.columns:
        column = layout.columns["messages"]
        value = layout.value(row, "messages")
        if value is None:
            raise RowError(f"{where}: column {column!r} is empty; expected a conversation")
        prompt, reply = split_reply(
            turns_of(value, column=column, where=where, images=images), column=column, where=where
        )
    else:
        column = layout.columns["problem"]
        value = layout.value(row, "problem")
        if is_conversation(value):
            turns = turns_of(value, column=column, where=where, images=images)
            prompt, reply = split_reply(turns, column=column, where=where)
            if reply and solution is not None:
                raise RowError(
                    f"{where}: the conversation in column {column!r} ends with a reply, and column "
                    f"{layout.column('solution')!r} holds another; expected one that ends with a "
                    f"user turn"
                )
        elif isinstance(value, list):
            raise RowError(
                f"{where}: column {column!r} holds {shown(value)}; expected text or a list of "
                f"turns ({{role, content}} or {{from, value}})"
            )
        else:
            prompt = _with_input(present(value, column=column, where=where), row, layout, where)
    prompt = _after_history(prompt, row, layout, where)
    if reply:
        has_history = any(turn["role"] == "assistant" for turn in prompt if isinstance(turn, dict))
        return Exchange(prompt=prompt, text=reply_text(reply), reply=reply, has_history=has_history)
    stated, turns = response_of(
        solution, column=layout.column("solution"), where=where, images=images
    )
    has_history = bool(layout.value(row, "history"))
    return Exchange(prompt=prompt, text=stated, reply=turns, has_history=has_history)


def response_of(
    value: object, *, column: str, where: str, images: bool = False
) -> tuple[str, tuple[Message, ...]]:
    """A reply as text and, if it is a conversation, as turns; ("", ()) for an empty cell.

    Args:
        value: text, a list of texts, turns, or a single turn.
        column: name of the column, for error messages.
        where: file and line of the row, for error messages.
        images: accept images among the parts of a turn.

    Returns:
        The text of the last assistant turn, and the turns.

    Raises:
        RowError: the cell holds neither, or its turns do not start and end with the assistant's.
    """
    if _is_blank(value):
        return "", ()
    if is_conversation(value):
        turns = turns_of(value, column=column, where=where, images=images)
        for turn in (turns[0], turns[-1]):
            if turn["role"] != "assistant":
                raise RowError(
                    f"{where}: column {column!r} holds a turn of role {turn['role']} where the "
                    f"assistant's reply is expected"
                )
        for number, (turn, after) in enumerate(pairwise(turns), start=2):
            if turn["role"] == after["role"] == "assistant":
                raise RowError(
                    f"{where}: column {column!r}, turn {number}: a second assistant turn in "
                    f"succession; expected one reply"
                )
        return reply_text(turns), turns
    return present(_joined("solution", value, column), column=column, where=where), ()


def answer_of(row: Row, layout: Layout, where: str) -> str:
    """The gold answer as text, "" for a null or blank cell; raises RowError for NaN."""
    value = layout.value(row, "answer")
    column = layout.column("answer")
    value = _joined("answer", value, column)
    if _is_blank(value):
        return ""
    return present(value, column=column, where=where)


def id_of(row: Row, layout: Layout, index: int, where: str) -> str:
    """Return the id of a row.

    Args:
        row: the row.
        layout: the columns of the table.
        index: position of the row, which is its id if the table has no column of ids.
        where: file and line, for errors.

    Returns:
        The id without white space around it.

    Raises:
        RowError: the cell holds no id.
    """
    if "id" not in layout.columns:
        return str(index)
    return present(layout.value(row, "id"), column=layout.columns["id"], where=where).strip()


def extras_of(row: Row, layout: Layout, where: str) -> Problem:
    """The tools, template variables and loss weight of a row, as a problem with nothing else."""
    kwargs = layout.value(row, "template_kwargs")
    if kwargs is not None and not isinstance(kwargs, Mapping):
        raise RowError(
            f"{where}: column {layout.column('template_kwargs')!r} holds {shown(kwargs)}; expected "
            f"an object"
        )
    return Problem(
        id="",
        prompt="",
        tools=tools_of(layout.value(row, "tools"), column=layout.column("tools"), where=where),
        template_kwargs={k: v for k, v in (kwargs or {}).items() if v is not None},
        loss_weight=_loss_weight(
            layout.value(row, "loss_weight"), layout.column("loss_weight"), where
        ),
    )


def about_of(row: Row, used: frozenset[str]) -> dict[str, str]:
    """The other columns of text or numbers, as text."""
    return {
        name: str(value)
        for name, value in row.items()
        if name not in used
        and isinstance(value, str | int | float)
        and not (isinstance(value, float) and math.isnan(value))
    }


def check_unique(ids: dict[str, str], id: str, where: str) -> None:
    """Record the id of a row; raise RowError if an earlier row has the same."""
    if id in ids:
        raise RowError(
            f"{where}: id {id!r} occurs more than once (first: {ids[id]}); ids must be unique"
        )
    ids[id] = where


def _with_input(problem: str, row: Row, layout: Layout, where: str) -> str:
    """Alpaca's instruction and, if it is not empty, its input on the next line."""
    value = layout.value(row, "input")
    if _is_blank(value):
        return problem
    return f"{problem}\n{text(value, column=layout.column('input'), where=where)}"


def _after_history(
    prompt: str | tuple[Message, ...], row: Row, layout: Layout, where: str
) -> str | tuple[Message, ...]:
    """The prompt after the row's system text and earlier exchanges, if it has any."""
    before: list[Message] = []
    system = layout.value(row, "system")
    if not _is_blank(system):
        if not isinstance(system, str):
            raise RowError(
                f"{where}: column {layout.column('system')!r} holds {shown(system)}; expected the "
                f"text of a system turn"
            )
        before.append({"role": "system", "content": system})
    history = layout.value(row, "history")
    pairs = [] if _is_blank(history) else history
    for pair in pairs if isinstance(pairs, list) else [pairs]:
        if not isinstance(pair, list) or len(pair) != 2:
            raise RowError(
                f"{where}: column {layout.column('history')!r} holds {shown(pair)}; expected a "
                f"list of [question, answer]"
            )
        for role, value in zip(("user", "assistant"), pair, strict=True):
            content = present(value, column=layout.column("history"), where=where)
            before.append({"role": role, "content": content})
    if not before:
        return prompt
    turns = ({"role": "user", "content": prompt},) if isinstance(prompt, str) else prompt
    if isinstance(system, str) and system.strip() and turns[0]["role"] == "system":
        if str(turns[0]["content"]).strip() == system.strip():
            return prompt
        raise RowError(
            f"{where}: column {layout.column('system')!r} and the first turn are two system texts"
        )
    return (*before, *turns)


def _is_blank(value: object) -> bool:
    """Return True for a null or blank cell, or an empty list."""
    return value is None or value == [] or (isinstance(value, str) and not value.strip())


def _joined(part: str, value: object, column: str) -> object:
    """A list of texts as one text, in columns where that is a list of answers or of solutions."""
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        return value
    # Several texts under `response` are alternatives, of which none is named.
    if part == "solution" and column in ("response", "completion", "output") and len(value) > 1:
        return value
    return JOINED[part].join(value)


def _loss_weight(value: object, column: str, where: str) -> float | tuple[float, ...]:
    """The factor of a demonstration's losses: a number, or a list of one per token."""
    if value is None:
        return 1.0
    weights: Sequence[object] = value if isinstance(value, list) else [value]
    if not weights or not all(
        isinstance(w, int | float) and not isinstance(w, bool) and math.isfinite(w) and w >= 0
        for w in weights
    ):
        raise RowError(
            f"{where}: column {column!r} holds {shown(value)}; expected a number of at least 0, or "
            f"a list of them"
        )
    numbers = tuple(float(str(w)) for w in weights)
    return numbers if isinstance(value, list) else numbers[0]
