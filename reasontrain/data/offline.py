"""Offline data: demonstrations and preference pairs, read from files and encoded as rollouts."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from reasontrain.data.files import Row, Table, text
from reasontrain.data.images import find_image
from reasontrain.data.prompts import Encoder
from reasontrain.types import Message, Problem, Rollout, UserError, text_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROMPTS = ("prompt", "problem", "question")


@dataclass(frozen=True, kw_only=True)
class Response:
    """A response as text, and optionally the token ids that were sampled.

    Sampled ids are used as they are; the text is not encoded again.
    """

    text: str
    ids: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class OfflineSample:
    """A problem with one response (a demonstration) or two (chosen, then rejected).

    `prompt_ids` are the prompt's ids at sampling time, empty if the file has none; `tokenizer` is
    the fingerprint of the tokenizer that they belong to, None if unknown.
    """

    problem: Problem
    responses: tuple[Response, ...]
    prompt_ids: tuple[int, ...] = ()
    tokenizer: str | None = None


def fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """A hash of the vocabulary, token by id, as 16 hex digits."""
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    return hashlib.sha256(repr(vocabulary).encode()).hexdigest()[:16]


def read_rollouts(table: Table, images: Path = Path()) -> list[OfflineSample]:
    """One demonstration per row.

    Columns are `prompt` and `response`, with `prompt_ids` and `response_ids` if they were sampled;
    or `conversations` in LLaVA's format, whose last reply is the response. `images` is the folder
    that image paths start from (see `find_image`). Raises UserError with the line and column of an
    invalid row.
    """
    rows = [_llava_to_response(row, table.where(i)) for i, row in enumerate(table.rows)]
    return [
        _sample(row, ("response",), _default_id(table, i), table.where(i), images)
        for i, row in enumerate(rows)
    ]


def read_pairs(table: Table, images: Path = Path()) -> list[OfflineSample]:
    """One pair per row, in TRL's preference format.

    Columns are `prompt`, `chosen` and `rejected`, all texts or all conversations; the prompt of
    conversations may be the turns that both sides share. `prompt_ids`, `chosen_ids` and
    `rejected_ids` are read if present. `images` is the folder that image paths start from (see
    `find_image`). Raises UserError with the line and column of an invalid row.
    """
    for name in ("chosen", "rejected"):
        table.require(name)
    sides = ("chosen", "rejected")
    return [
        _sample(row, sides, _default_id(table, i), table.where(i), images)
        for i, row in enumerate(table.rows)
    ]


def _default_id(table: Table, index: int) -> str:
    return str(table.rows[index].get("id", index))


def _llava_to_response(row: Row, where: str) -> Row:
    """Turn LLaVA's `conversations` into `prompt` and `response`; return other rows unchanged."""
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
            f"{where}: column 'conversations' should hold {{from, value}} turns that alternate "
            f"between `human` and `gpt`"
        )
    messages = [{"role": roles[turn["from"]], "content": turn.get("value")} for turn in turns]
    return {**row, "prompt": messages[:-1], "response": messages[-1:]}


def _sample(row: Row, sides: Sequence[str], id: str, where: str, images: Path) -> OfflineSample:
    """One row as a sample; raises UserError if a part is missing or has the wrong type."""
    missing = [side for side in sides if not row.get(side)]
    if missing:
        both = "; a pair needs a chosen and a rejected response" if len(sides) > 1 else ""
        raise UserError(f"{where}: column {missing[0]!r} is missing or empty{both}")
    shared, row = _without_shared_turns(row, sides)
    name = next((name for name in PROMPTS if row.get(name)), None)
    if name is None and not shared:
        raise UserError(
            f"{where}: there is no prompt (expected one of: {', '.join(PROMPTS)}; the row has: "
            f"{', '.join(row)})"
        )
    prompt = shared if name is None else _prompt(row[name], name, where)
    responses = tuple(
        Response(text=_answer(row[side], side, where), ids=_ids(row, f"{side}_ids", where))
        for side in sides
    )
    prompt_ids = _ids(row, "prompt_ids", where)
    tokenizer = str(row["tokenizer"]) if row.get("tokenizer") else None
    if len({bool(prompt_ids), *(bool(response.ids) for response in responses)}) > 1:
        raise UserError(
            f"{where}: only some of the columns prompt_ids, "
            f"{', '.join(f'{side}_ids' for side in sides)} are present; give all of them or none"
        )
    image = find_image(row, images, where)
    if image is not None and prompt_ids:
        raise UserError(
            f"{where}: a row with an image cannot have token ids, since their number of image "
            f"tokens is unknown; remove the columns of ids"
        )
    problem = Problem(id=id, prompt=prompt, answer=str(row.get("answer") or ""), image=image)
    return OfflineSample(
        problem=problem, responses=responses, prompt_ids=prompt_ids, tokenizer=tokenizer
    )


def _without_shared_turns(row: Row, sides: Sequence[str]) -> tuple[tuple[Message, ...], Row]:
    """The turns that both conversations start with, and the row without these turns."""
    if len(sides) < 2 or not all(isinstance(row[side], list) for side in sides):
        return (), row
    first, second = ([dict(turn) for turn in _turns(row[side])] for side in sides)
    num = next(
        (i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b),
        min(len(first), len(second)),
    )
    # If one side is a prefix of the other, its last turn is still its response.
    num = min(num, len(first) - 1, len(second) - 1)
    return _turns(first[:num]), {**row, sides[0]: first[num:], sides[1]: second[num:]}


def _turns(value: object) -> tuple[Message, ...]:
    """The turns of a conversation; empty if the value is not one."""
    turns = value if isinstance(value, list) else []
    if not all(
        isinstance(t, dict) and isinstance(t.get("role"), str) and isinstance(t.get("content"), str)
        for t in turns
    ):
        return ()
    return tuple(Message(role=turn["role"], content=turn["content"]) for turn in turns)


def _prompt(value: object, column: str, where: str) -> str | tuple[Message, ...]:
    """A text, or turns that end with the user's; raises UserError for anything else."""
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
    """A text, or the content of a single assistant turn; raises UserError for anything else."""
    if not isinstance(value, list):
        return text(value, column=column, where=where)
    turns = _turns(value)
    if [turn["role"] for turn in turns] != ["assistant"] or not turns[0]["content"]:
        raise UserError(
            f"{where}: column {column!r} should end in one {{role: assistant, content}} "
            f"turn beyond the prompt"
        )
    return text_of(turns[0])


def _ids(row: Row, column: str, where: str) -> tuple[int, ...]:
    """The token ids in a column; empty if the row does not have it."""
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
    samples: Sequence[OfflineSample], encoder: Encoder, context: int
) -> tuple[list[tuple[Rollout, ...]], int]:
    """The responses of each sample as rollouts, and the number of samples that were dropped.

    Responses given as text end with the end-of-turn token. A sample is dropped if one of its
    sequences is longer than `context` tokens. Raises UserError for ids of another tokenizer, and if
    nothing fits.
    """
    own = fingerprint(encoder.tokenizer)
    end = encoder.tokenizer.eos_token_id
    encoded = []
    for index, sample in enumerate(samples):
        if sample.tokenizer is not None and sample.tokenizer != own:
            raise UserError(
                f"sample {sample.problem.id} has token ids of another tokenizer (fingerprint "
                f"{sample.tokenizer}, the model's is {own}); remove the columns of ids, and the "
                f"texts are encoded again"
            )
        prompt_ids = sample.prompt_ids or encoder.prompt_ids(sample.problem)
        sides = [
            r.ids or (*encoder.tokenizer(r.text, add_special_tokens=False)["input_ids"], end)
            for r in sample.responses
        ]
        if len(prompt_ids) <= encoder.limit and len(prompt_ids) + max(map(len, sides)) <= context:
            encoded.append(
                tuple(
                    _rollout(sample, prompt_ids, ids, i, group=index * len(sides))
                    for i, ids in enumerate(sides)
                )
            )
    if not encoded:
        raise UserError(
            f"none of {len(samples)} samples fits: the limit is {encoder.limit} tokens for a "
            f"prompt and {context} for prompt and response"
        )
    return encoded, len(samples) - len(encoded)


def _rollout(
    sample: OfflineSample,
    prompt_ids: tuple[int, ...],
    ids: tuple[int, ...],
    side: int,
    *,
    group: int,
) -> Rollout:
    """One response of a sample."""
    text = sample.responses[side].text
    return Rollout(
        problem=sample.problem,
        id=group + side,
        group=group,
        prompt_ids=prompt_ids,
        response_ids=ids,
        text=text,
    )
