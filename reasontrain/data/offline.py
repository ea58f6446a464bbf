"""Offline data: demonstrations and preference pairs, read from files and encoded as rollouts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from reasontrain.data.conversations import is_conversation, split_reply, turns_of
from reasontrain.data.files import BadRows, Row, RowError, Table, cell, usable
from reasontrain.data.images import find_image
from reasontrain.data.prompts import Encoder
from reasontrain.data.replies import (
    RenderedReply,
    WrittenReply,
    encode_replies,
    learned_of,
    render_reply,
    with_loss_weight,
)
from reasontrain.data.rows import (
    USUAL,
    Layout,
    Part,
    about_of,
    answer_of,
    check_unique,
    check_unrated,
    exchange_of,
    extras_of,
    id_of,
    layout_of,
    response_of,
)
from reasontrain.types import Message, Problem, Rollout, UserError, listed

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROMPTS = ("prompt", "problem", "question")
RESPONSES = ("response", "completion", "output")
Side = Literal["chosen", "rejected"]
SIDES: tuple[Side, ...] = ("chosen", "rejected")
_RESPONSE_COLUMNS = frozenset({*RESPONSES, *SIDES, "tokenizer"})
"""Columns that say nothing of the problem."""


@dataclass(frozen=True, kw_only=True)
class WrittenResponse:
    """A response as text, and optionally the token ids that were sampled.

    Sampled ids are used as they are; the text is not encoded again. `turns` are the response as a
    conversation states it, () if it is plain text.
    """

    text: str
    turns: tuple[Message, ...] = ()
    ids: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class OfflineSample:
    """A problem with one response (a demonstration) or two (chosen, then rejected).

    `prompt_ids` are the prompt's ids at sampling time, empty if the file has none; `tokenizer` is
    the fingerprint of the tokenizer that they belong to, None if unknown.
    """

    problem: Problem
    responses: tuple[WrittenResponse, ...]
    prompt_ids: tuple[int, ...] = ()
    tokenizer: str | None = None


def fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """A hash of the vocabulary, token by id, as 16 hex digits."""
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    return hashlib.sha256(repr(vocabulary).encode()).hexdigest()[:16]


def read_rollouts(
    table: Table,
    images: Path = Path(),
    *,
    columns: Mapping[Part, str] | None = None,
    bad_rows: BadRows = "refuse",
    unreadable: Sequence[RowError] = (),
) -> list[OfflineSample]:
    """One demonstration per row.

    A row is a prompt and a response, each text or turns, or a conversation that ends with a reply
    (see `reasontrain.data.rows`); with `prompt_ids` and `response_ids` if they were sampled.

    Args:
        table: the rows.
        images: the folder that image paths start from (see `find_image`).
        columns: columns that the user named.
        bad_rows: "refuse" makes a row that cannot be used an error, "drop" drops and counts it.
        unreadable: errors of lines that are no rows.

    Returns:
        The demonstrations, with unique ids.

    Raises:
        UserError: the table holds no demonstrations; or a row cannot be used, and is not dropped.
    """
    layout = layout_of(table, _responses_first(columns or {}, table), prefer_messages=True)
    _check_demonstrations(table, layout)
    ids: dict[str, str] = {}

    def read(index: int) -> OfflineSample:
        row = table.rows[index]
        where = table.where(index)
        exchange = exchange_of(row, layout, where, images=True)
        if not exchange.text.strip() and not exchange.reply:
            part: Part = "messages" if "messages" in layout.columns else "solution"
            raise RowError(
                f"{where}: there is no reply to learn from (column {layout.column(part)!r} "
                f"{'ends without one' if part == 'messages' else 'is empty'})"
            )
        ids_column = _ids_column(layout.column("solution"), row)
        response = WrittenResponse(
            text=exchange.text, turns=exchange.reply, ids=_ids(row, ids_column, where)
        )
        problem = _problem(row, layout, index, where, exchange.prompt, images)
        problem = replace(
            problem,
            solution=exchange.text,
            reply=exchange.reply,
            learn_history=exchange.has_history,
        )
        check_unique(ids, problem.id, where)
        return _sample(problem, row, (response,), (ids_column,))

    return usable(table, read, bad_rows, unreadable)


def read_pairs(
    table: Table,
    images: Path = Path(),
    *,
    columns: Mapping[Part | Side, str] | None = None,
    bad_rows: BadRows = "refuse",
    unreadable: Sequence[RowError] = (),
) -> list[OfflineSample]:
    """One pair per row, in TRL's preference format.

    Columns are `prompt`, `chosen` and `rejected`, each text or turns; the prompt of conversations
    may be the turns that both sides share. `prompt_ids`, `chosen_ids` and `rejected_ids` are read
    if present.

    Args: those of `read_rollouts`; `columns` may name the two sides too.

    Returns:
        The pairs, with unique ids.

    Raises:
        UserError: the table holds no pairs; or a row cannot be used, and is not dropped.
    """
    named = dict(columns or {})
    sides = {side: named.pop(side, side) for side in SIDES}
    _check_pairs(table, sides)
    layout = layout_of(table, cast(dict[Part, str], named), needs_prompt=False, responses=False)
    ids: dict[str, str] = {}

    def read(index: int) -> OfflineSample:
        row = table.rows[index]
        where = table.where(index)
        cells = {side: cell(row, column) for side, column in sides.items()}
        for side, column in sides.items():
            if not cells[side] or (isinstance(cells[side], str) and not str(cells[side]).strip()):
                raise RowError(
                    f"{where}: column {column!r} is missing or empty; a pair needs a chosen and a "
                    f"rejected response"
                )
        if layout.value(row, "loss_weight") is not None:
            raise RowError(
                f"{where}: column {layout.column('loss_weight')!r} weights the tokens of "
                f"demonstrations; pairs have no such weights"
            )
        prompt, responses = _sides(row, layout, where, sides, cells)
        answers = tuple(
            replace(response, ids=_ids(row, f"{sides[side]}_ids", where))
            for side, response in zip(SIDES, responses, strict=True)
        )
        problem = _problem(row, layout, index, where, prompt, images)
        check_unique(ids, problem.id, where)
        return _sample(problem, row, answers, [f"{column}_ids" for column in sides.values()])

    return usable(table, read, bad_rows, unreadable)


def _responses_first(named: Mapping[Part, str], table: Table) -> Mapping[Part, str]:
    """The named columns, with `response` and the like before a worked `solution`."""
    response = table.find([name for name in RESPONSES if name not in named.values()])
    if "solution" in named or response is None:
        return named
    return {**named, "solution": response}


def _check_demonstrations(table: Table, layout: Layout) -> None:
    """Refuse a table without replies, and name the kind of task that reads it."""
    if table.has("chosen") and table.has("rejected") and "solution" not in layout.columns:
        raise UserError(
            f"{table.source} holds preference pairs (columns 'chosen' and 'rejected'); read them "
            f"with `task.kind: pairs`"
        )
    check_unrated(table, layout)
    if "messages" in layout.columns or "solution" in layout.columns:
        return
    if is_conversation(next((layout.value(row, "problem") for row in table.rows), None)):
        return
    kind = "gsm8k" if _looks_like_gsm8k(table, layout) else "math"
    remedy = (
        f"problems with gold answers are read with `task.kind: {kind}`"
        if "answer" in layout.columns
        else "name it, as in `task.columns: {response: ...}`; prompts alone are read with "
        "`task.kind: math` and a `sample` section"
    )
    raise UserError(
        f"{table.source} has no column for the response (looked for: {', '.join(RESPONSES)}, "
        f"{', '.join(USUAL['messages'])}; it has: {listed(table.nested_names)}); {remedy}"
    )


def _looks_like_gsm8k(table: Table, layout: Layout) -> bool:
    return "####" in str(layout.value(table.rows[0], "answer"))


def _check_pairs(table: Table, sides: Mapping[Side, str]) -> None:
    """Refuse a table without both sides, and name the kind of task that reads it."""
    missing = [column for column in sides.values() if not table.has(column)]
    if len(missing) == len(sides) and table.find((*USUAL["messages"], *USUAL["solution"])):
        raise UserError(
            f"{table.source} has no column {missing[0]!r} (it has: "
            f"{listed(table.nested_names)}); demonstrations are read with `task.kind: rollouts`"
        )
    for column in sides.values():
        table.require(column)


def _sides(
    row: Row,
    layout: Layout,
    where: str,
    sides: Mapping[Side, str],
    cells: Mapping[Side, object],
) -> tuple[str | tuple[Message, ...], list[WrittenResponse]]:
    """The prompt of a pair and its two responses.

    Turns that both sides start with belong to the prompt; a column may state the prompt too, if it
    agrees with them.
    """
    turns = {
        side: turns_of(cells[side], column=column, where=where)
        if is_conversation(cells[side]) or isinstance(cells[side], list)
        else ()
        for side, column in sides.items()
    }
    shared: tuple[Message, ...] = ()
    if all(turns.values()):
        first, second = turns.values()
        pairs = zip(first, second, strict=False)
        shortest = min(len(first), len(second))
        num = next((i for i, (a, b) in enumerate(pairs) if a != b), shortest)
        # If one side is a prefix of the other, its last turn is still its response.
        num = min(num, shortest - 1)
        shared = first[:num]
        turns = {side: own[num:] for side, own in turns.items()}
    if "problem" in layout.columns or "messages" in layout.columns:
        stated = layout.value(row, "problem" if "problem" in layout.columns else "messages")
    else:
        stated = None
    blank = stated is None or stated == [] or (isinstance(stated, str) and not stated.strip())
    if blank and not shared:
        raise RowError(
            f"{where}: there is no prompt (looked for: {', '.join(USUAL['problem'])}, or turns "
            f"that both sides start with; the row has: {listed(row)})"
        )
    if blank:
        prompt: str | tuple[Message, ...] = shared
        split_reply(shared, column=sides["chosen"], where=where)
    else:
        exchange = exchange_of(row, layout, where)
        if exchange.reply:
            raise RowError(
                f"{where}: the prompt ends with the assistant's turn; expected a user turn"
            )
        prompt = _agreed(exchange.prompt, shared, where)
    responses = []
    for side, column in sides.items():
        value = list(turns[side]) or cells[side]
        content, own = response_of(value, column=column, where=where)
        responses.append(WrittenResponse(text=content, turns=own))
    return prompt, responses


def _agreed(
    prompt: str | tuple[Message, ...], shared: tuple[Message, ...], where: str
) -> str | tuple[Message, ...]:
    """The prompt of a column, or the turns that both sides share if these begin or end with it."""
    if not shared:
        return prompt
    stated = ({"role": "user", "content": prompt},) if isinstance(prompt, str) else prompt
    if shared[-len(stated) :] == stated or shared[: len(stated)] == stated:
        return shared
    raise RowError(
        f"{where}: the prompt and the turns that both sides start with differ; leave one out"
    )


def _problem(
    row: Row,
    layout: Layout,
    index: int,
    where: str,
    prompt: str | tuple[Message, ...],
    images: Path,
) -> Problem:
    """The problem of a row, without a reply."""
    return replace(
        extras_of(row, layout, where),
        id=id_of(row, layout, index, where),
        prompt=prompt,
        answer=answer_of(row, layout, where),
        image=find_image(row, images, where),
        source=where,
        about=about_of(row, layout.used | _RESPONSE_COLUMNS),
    )


def _sample(
    problem: Problem, row: Row, responses: tuple[WrittenResponse, ...], ids_columns: Sequence[str]
) -> OfflineSample:
    """A sample with its token ids; raises RowError if only some of them are there."""
    where = problem.source
    prompt_ids = _ids(row, "prompt_ids", where)
    if len({bool(prompt_ids), *(bool(response.ids) for response in responses)}) > 1:
        raise RowError(
            f"{where}: only some of the columns prompt_ids, {', '.join(ids_columns)} are present; "
            f"give all of them or none"
        )
    if problem.image is not None and prompt_ids:
        raise RowError(
            f"{where}: a row with an image cannot have token ids, since their number of image "
            f"tokens is unknown; remove the columns of ids"
        )
    tokenizer = row.get("tokenizer")
    return OfflineSample(
        problem=problem,
        responses=responses,
        prompt_ids=prompt_ids,
        tokenizer=str(tokenizer) if tokenizer else None,
    )


def _ids_column(response: str, row: Row) -> str:
    """The column of a response's token ids: named after it, or `response_ids`."""
    own = f"{response}_ids"
    return own if own in row else "response_ids"


def _ids(row: Row, column: str, where: str) -> tuple[int, ...]:
    """The token ids in a column; empty if the row does not have it."""
    value = row.get(column)
    if value is None:
        return ()
    if (
        not isinstance(value, list)
        or not value
        or not all(isinstance(i, int) and not isinstance(i, bool) and i >= 0 for i in value)
    ):
        raise RowError(f"{where}: column {column!r} should hold a list of token ids")
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
    replies = [reply for each in rendered for reply in each.replies]
    written = iter(encode_replies(encoder, replies))
    rows: list[tuple[Rollout, ...]] = []
    for each in rendered:
        if each.sampled:
            rows.append(each.sampled)
        else:
            rows += _rows(each.sample, [next(written) for _ in each.replies])
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


@dataclass(frozen=True)
class _Rendered:
    """A sample with its responses as text, or as rollouts if it has their ids."""

    sample: OfflineSample
    replies: tuple[RenderedReply, ...] = ()
    sampled: tuple[Rollout, ...] = ()


def _render(sample: OfflineSample, encoder: Encoder, own: str) -> _Rendered:
    """Render a sample's responses; `own` is the fingerprint of the encoder's tokenizer."""
    if sample.tokenizer is not None and sample.tokenizer != own:
        raise UserError(
            f"{sample.problem.where} has token ids of another tokenizer (fingerprint "
            f"{sample.tokenizer}, the model's is {own}); remove the columns of ids, and the "
            f"texts are encoded again"
        )
    if all(response.ids for response in sample.responses):
        return _Rendered(sample, sampled=_sampled_rollouts(sample, encoder))
    is_pair = len(sample.responses) > 1
    replies = tuple(
        render_reply(
            encoder,
            WrittenReply(
                problem=sample.problem,
                turns=response.turns or (Message(role="assistant", content=response.text),),
                loss_weight=1.0 if is_pair else sample.problem.loss_weight,
                learned="reply" if is_pair else learned_of(encoder, sample.problem),
            ),
        )
        for response in sample.responses
    )
    return _Rendered(sample, replies)


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
    is_pair = len(sample.responses) > 1
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
            1.0 if is_pair else sample.problem.loss_weight,
        )
        for side, response in enumerate(sample.responses)
    )
