"""Offline data: demonstrations and preference pairs, read from files and encoded as rollouts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from reasontrain.data.files import Row, Table, text
from reasontrain.data.images import find_image
from reasontrain.data.prompts import Encoder
from reasontrain.data.replies import (
    RenderedReply,
    Reply,
    checked_weight,
    encode_replies,
    render_reply,
    with_loss_weight,
)
from reasontrain.types import Message, Problem, Rollout, UserError, text_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROMPTS = ("prompt", "problem", "question")


@dataclass(frozen=True, kw_only=True)
class Response:
    """A response as text, as turns, or as the token ids that were sampled.

    Sampled ids are used as they are; the text is not encoded again. `turns` are the assistant's
    turns and those of tools and users between them; without them `text` is one turn. `loss_weight`
    is one factor for all trained tokens, or one for each.
    """

    text: str
    ids: tuple[int, ...] = ()
    turns: tuple[Message, ...] = ()
    loss_weight: float | tuple[float, ...] = 1.0


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
    """Turn LLaVA's `conversations` into `prompt` and `response`; return other rows unchanged.

    The response begins with the first reply, so that all of them are learned.
    """
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
    is_reply = [message["role"] == "assistant" for message in messages]
    first = is_reply.index(True) if any(is_reply) else len(messages)
    return {**row, "prompt": messages[:first], "response": messages[first:]}


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
    responses = tuple(_response(row, side, where, is_pair=len(sides) > 1) for side in sides)
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
    problem = Problem(
        id=id,
        prompt=prompt,
        answer=str(row.get("answer") or ""),
        tools=tools_of(row, where),
        template_kwargs=template_kwargs_of(row, where),
        source=where,
        image=image,
    )
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
    """The turns of a conversation with all their fields; empty if the value is not one."""
    turns = value if isinstance(value, list) else []
    if not all(
        isinstance(t, dict)
        and isinstance(t.get("role"), str)
        and isinstance(t.get("content"), str | list | None)
        for t in turns
    ):
        return ()
    return tuple({"content": None, **turn} for turn in turns)


def _prompt(value: object, column: str, where: str) -> str | tuple[Message, ...]:
    """A text, or turns that the assistant answers; raises UserError for anything else."""
    if not isinstance(value, list):
        return text(value, column=column, where=where)
    turns = _turns(value)
    if not turns or turns[-1]["role"] in ("assistant", "system"):
        raise UserError(
            f"{where}: column {column!r} should hold {{role, content}} turns that end with "
            f"the user's"
        )
    return turns


def _response(row: Row, side: str, where: str, *, is_pair: bool) -> Response:
    """The text or turns of a side with its ids and weights; raises UserError for anything else."""
    value = row[side]
    ids = _ids(row, f"{side}_ids", where)
    weight = loss_weight_of(row, f"{side}_loss_weight" if is_pair else "loss_weight", where)
    if not isinstance(value, list):
        content = text(value, column=side, where=where)
        return Response(text=content, ids=ids, loss_weight=weight)
    turns = _turns(value)
    if not turns or {turns[0]["role"], turns[-1]["role"]} != {"assistant"}:
        raise UserError(
            f"{where}: column {side!r} should hold {{role: assistant, content}} turns beyond the "
            f"prompt; turns of tools and users may stand between them"
        )
    return Response(
        text="\n\n".join(text_of(turn) for turn in turns if turn["role"] == "assistant"),
        ids=ids,
        turns=turns,
        loss_weight=weight,
    )


def tools_of(row: Row, where: str) -> tuple[Mapping[str, object], ...]:
    """The column `tools`: a list of schemas, or such a list as JSON text."""
    value = row.get("tools")
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(value)
        except ValueError as error:
            raise UserError(f"{where}: column 'tools' is not JSON: {error}") from error
    if value is None or value == "":
        return ()
    if not isinstance(value, list) or not all(isinstance(tool, dict) for tool in value):
        raise UserError(f"{where}: column 'tools' should hold a list of schemas (JSON objects)")
    return tuple(value)


def template_kwargs_of(row: Row, where: str) -> Mapping[str, object]:
    """The column `chat_template_kwargs`: further variables of the chat template, as in TRL."""
    value = row.get("chat_template_kwargs")
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise UserError(f"{where}: column 'chat_template_kwargs' should hold a JSON object")
    return {name: each for name, each in value.items() if each is not None}


def loss_weight_of(row: Row, column: str, where: str) -> float | tuple[float, ...]:
    """The column of loss weights: a number, or one for each trained token."""
    value = row.get(column)
    if isinstance(value, list):
        return tuple(checked_weight(each, where) for each in value)
    return checked_weight(value, where)


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

    Responses given as text or turns end as the chat template ends turns. A demonstration of several
    turns may become several rows. A row is dropped if one of its sequences is longer than `context`
    tokens. Raises UserError for ids of another tokenizer, and if nothing fits.
    """
    own = fingerprint(encoder.tokenizer)
    rendered = encoder.usable(samples, lambda sample: _render(sample, encoder, own))
    written = iter(encode_replies(encoder, [reply for _, each in rendered for reply in each]))
    rows: list[tuple[Rollout, ...]] = []
    for sample, replies in rendered:
        if replies:
            rows += _rows(sample, [next(written) for _ in replies])
        else:
            rows.append(_sampled_rollouts(sample, encoder))
    fitting = [
        row
        for row in rows
        if all(
            len(rollout.prompt_ids) <= encoder.limit
            and len(rollout.prompt_ids) + len(rollout.response_ids) <= context
            for rollout in row
        )
    ]
    if not fitting:
        raise UserError(
            f"none of {len(rows)} samples fits: the limit is {encoder.limit} tokens for a "
            f"prompt and {context} for prompt and response"
        )
    size = len(fitting[0])
    numbered = [
        tuple(
            replace(rollout, id=index * size + side, group=index * size)
            for side, rollout in enumerate(row)
        )
        for index, row in enumerate(fitting)
    ]
    return numbered, len(rows) - len(fitting)


def _render(
    sample: OfflineSample, encoder: Encoder, own: str
) -> tuple[OfflineSample, list[RenderedReply]]:
    """The sample's responses as text; empty if it has ids."""
    if sample.tokenizer is not None and sample.tokenizer != own:
        raise UserError(
            f"{sample.problem.where} has token ids of another tokenizer (fingerprint "
            f"{sample.tokenizer}, the model's is {own}); remove the columns of ids, and the "
            f"texts are encoded again"
        )
    if all(response.ids for response in sample.responses):
        return sample, []
    is_last = len(sample.responses) == 1 and encoder.settings.train_on == "last_assistant"
    return sample, [
        render_reply(
            encoder,
            Reply(
                problem=sample.problem,
                turns=response.turns or (Message(role="assistant", content=response.text),),
                loss_weight=response.loss_weight,
                learned="last" if is_last else "reply",
            ),
        )
        for response in sample.responses
    ]


def _rows(sample: OfflineSample, sides: Sequence[Sequence[Rollout]]) -> list[tuple[Rollout, ...]]:
    """A pair as one row, or a demonstration as a row per rollout."""
    if len(sides) == 1:
        return [(rollout,) for rollout in sides[0]]
    if any(len(side) > 1 for side in sides):
        raise UserError(
            f"{sample.problem.where}: the chat template changes earlier turns of a side when later "
            f"ones follow, so the side is not one sequence; give each side one turn of the "
            f"assistant, or use a template that keeps turns"
        )
    return [tuple(side[0] for side in sides)]


def _sampled_rollouts(sample: OfflineSample, encoder: Encoder) -> tuple[Rollout, ...]:
    """The responses of a sample with ids, which are used as they are."""
    prompt_ids = sample.prompt_ids or encoder.prompt_ids(sample.problem)
    return tuple(
        with_loss_weight(
            Rollout(
                problem=sample.problem,
                id=side,
                group=0,
                prompt_ids=prompt_ids,
                response_ids=response.ids,
                text=response.text,
            ),
            response.loss_weight,
        )
        for side, response in enumerate(sample.responses)
    )
