"""Responses that somebody wrote: demonstrations and preference pairs, as rows of a file and as
rollouts of token ids.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from reasontrain.data.files import Row, Table, text
from reasontrain.data.images import find_image
from reasontrain.data.prompts import Encoder
from reasontrain.types import Message, Problem, Rollout, UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROMPTS = ("prompt", "problem", "question")


@dataclass(frozen=True, kw_only=True)
class Response:
    """A response as text; with `ids` as the very tokens that were sampled, which are then never
    encoded again.
    """

    text: str
    ids: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class OfflineRows:
    """A problem with one response (a demonstration) or two (the chosen one and the rejected one).

    `prompt_ids` are those that the responses were made for, where the file has them, in the ids of
    the tokenizer with this fingerprint.
    """

    problem: Problem
    responses: tuple[Response, ...]
    prompt_ids: tuple[int, ...] = ()
    tokenizer: str = ""


def fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """16 hex digits of what each id means."""
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    return hashlib.sha256(repr(vocabulary).encode()).hexdigest()[:16]


def read_rollouts(table: Table, images: Path = Path()) -> list[OfflineRows]:
    """A demonstration per row: `prompt` and `response`, with `prompt_ids` and `response_ids` where
    they were sampled.

    Or `conversations` as LLaVA's data have them, of which the last reply is learned. Images: see
    `find_image`.
    """
    rows = [_as_response(row, table.where(i)) for i, row in enumerate(table.rows)]
    return [
        _written(row, ("response",), _default_id(table, i), table.where(i), images)
        for i, row in enumerate(rows)
    ]


def read_pairs(table: Table, images: Path = Path()) -> list[OfflineRows]:
    """A pair per row, in TRL's preference format: `prompt`, `chosen` and `rejected`, all texts or
    all conversations.

    A conversation may have its prompt in the turns that both sides share. `prompt_ids`,
    `chosen_ids` and `rejected_ids` are read where they are. Raises UserError for a pair without one
    of its sides.
    """
    for name in ("chosen", "rejected"):
        table.require(name)
    sides = ("chosen", "rejected")
    return [
        _written(row, sides, _default_id(table, i), table.where(i), images)
        for i, row in enumerate(table.rows)
    ]


def _default_id(table: Table, index: int) -> str:
    return str(table.rows[index].get("id", index))


def _as_response(row: Row, where: str) -> Row:
    """A row with LLaVA's `conversations` as one with `prompt` and `response`; any other as it is."""
    turns = row.get("conversations")
    if turns is None or row.get("response"):
        return row
    roles = {"human": "user", "gpt": "assistant", "system": "system"}
    if (
        not isinstance(turns, list)
        or not all(isinstance(t, dict) and t.get("from") in roles for t in turns)
        or len(turns) < 2
    ):
        raise UserError(
            f"{where}: column 'conversations' should hold {{from, value}} turns of `human` "
            f"and `gpt` by turns"
        )
    said = [{"role": roles[turn["from"]], "content": turn.get("value")} for turn in turns]
    return {**row, "prompt": said[:-1], "response": said[-1:]}


def _written(row: Row, sides: Sequence[str], id: str, where: str, images: Path) -> OfflineRows:
    """One row; raises UserError where a part is missing or is not what it should be."""
    missing = [side for side in sides if not row.get(side)]
    if missing:
        both = "; a pair needs a chosen and a rejected one" if len(sides) > 1 else ""
        raise UserError(
            f"{where}: there is no {missing[0]} answer (column {missing[0]!r} is empty){both}"
        )
    shared, row = _without_shared_turns(row, sides)
    name = next((name for name in PROMPTS if row.get(name)), None)
    if name is None and not shared:
        raise UserError(
            f"{where}: there is no prompt (looked for: {', '.join(PROMPTS)}; the row has: "
            f"{', '.join(row)})"
        )
    prompt = shared if name is None else _prompt(row[name], name, where)
    responses = tuple(
        Response(text=_answer(row[side], side, where), ids=_ids(row, f"{side}_ids", where))
        for side in sides
    )
    prompt_ids, tokenizer = _ids(row, "prompt_ids", where), str(row.get("tokenizer") or "")
    if len({bool(prompt_ids), *(bool(response.ids) for response in responses)}) > 1:
        raise UserError(
            f"{where}: some of prompt_ids, {', '.join(f'{side}_ids' for side in sides)} "
            f"are there and some are not"
        )
    image = find_image(row, images, where)
    if image is not None and prompt_ids:
        raise UserError(
            f"{where}: ids of tokens do not say which image they were made for; leave "
            f"their columns out"
        )
    problem = Problem(id=id, prompt=prompt, answer=str(row.get("answer") or ""), image=image)
    return OfflineRows(
        problem=problem, responses=responses, prompt_ids=prompt_ids, tokenizer=tokenizer
    )


def _without_shared_turns(row: Row, sides: Sequence[str]) -> tuple[tuple[Message, ...], Row]:
    """The turns that both conversations begin with, and the row without them."""
    if len(sides) < 2 or not all(isinstance(row[side], list) for side in sides):
        return (), row
    first, second = ([dict(turn) for turn in _turns(row[side])] for side in sides)
    num = next(
        (i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b),
        min(len(first), len(second)),
    )
    num = min(num, len(first) - 1, len(second) - 1)
    return _turns(first[:num]), {**row, sides[0]: first[num:], sides[1]: second[num:]}


def _turns(value: object) -> tuple[Message, ...]:
    """Turns of a conversation; empty where it is none."""
    turns = value if isinstance(value, list) else []
    if not all(
        isinstance(t, dict) and isinstance(t.get("role"), str) and isinstance(t.get("content"), str)
        for t in turns
    ):
        return ()
    return tuple(Message(role=turn["role"], content=turn["content"]) for turn in turns)


def _prompt(value: object, column: str, where: str) -> str | tuple[Message, ...]:
    """A text, or turns that end with the user's."""
    if not isinstance(value, list):
        return text(value, column=column, where=where)
    turns = _turns(value)
    if not turns or turns[-1]["role"] != "user":
        raise UserError(
            f"{where}: column {column!r} should hold {{role, content}} turns that end with "
            f"the user's"
        )
    return turns


def _answer(value: object, column: str, where: str) -> str:
    """A text, or what the assistant says in its only turn."""
    if not isinstance(value, list):
        return text(value, column=column, where=where)
    turns = _turns(value)
    if [turn["role"] for turn in turns] != ["assistant"] or not turns[0]["content"]:
        raise UserError(
            f"{where}: column {column!r} should end in one {{role: assistant, content}} "
            f"turn beyond the prompt"
        )
    return turns[0]["content"]


def _ids(row: Row, column: str, where: str) -> tuple[int, ...]:
    """Token ids, or none where the row has no such column."""
    value = row.get(column)
    if value is None:
        return ()
    if (
        not isinstance(value, list)
        or not value
        or not all(isinstance(i, int) and i >= 0 for i in value)
    ):
        raise UserError(f"{where}: column {column!r} should hold a list of token ids")
    return tuple(value)


def encode(
    rows: Sequence[OfflineRows], encoder: Encoder, context: int
) -> tuple[list[tuple[Rollout, ...]], int]:
    """The responses of each row as rollouts, ended by the end-of-turn token where they come as
    text; and how many did not fit.

    A row of which one response is too long is dropped whole. Raises UserError for ids of another
    tokenizer.
    """
    own, end = fingerprint(encoder.tokenizer), encoder.tokenizer.eos_token_id
    found = []
    for index, row in enumerate(rows):
        if row.tokenizer not in ("", own):
            raise UserError(
                f"row {row.problem.id} has ids of another tokenizer (fingerprint "
                f"{row.tokenizer}, the model's is {own}); leave "
                "the columns of ids out, and its texts are encoded anew"
            )
        prompt_ids = row.prompt_ids or encoder.prompt_ids(row.problem)
        sides = [
            r.ids or (*encoder.tokenizer(r.text, add_special_tokens=False)["input_ids"], end)
            for r in row.responses
        ]
        if len(prompt_ids) <= encoder.limit and len(prompt_ids) + max(map(len, sides)) <= context:
            found.append(
                tuple(
                    _rollout(row, prompt_ids, ids, i, group=index * len(sides))
                    for i, ids in enumerate(sides)
                )
            )
    if not found:
        raise UserError(
            f"none of {len(rows)} written responses fits: prompts of {encoder.limit} "
            f"tokens, {context} in all"
        )
    return found, len(rows) - len(found)


def _rollout(
    row: OfflineRows, prompt_ids: tuple[int, ...], ids: tuple[int, ...], place: int, *, group: int
) -> Rollout:
    """One response of a row."""
    text = row.responses[place].text
    return Rollout(
        problem=row.problem,
        id=group + place,
        group=group,
        prompt_ids=prompt_ids,
        response_ids=ids,
        text=text,
    )
