"""Written replies -> rollouts: the prompt that inference sends, and the ids that follow it.

A conversation becomes one rollout as long as the prompt of every trained turn begins with the ids
before it. Where the chat template renders earlier turns in another way than when they were written
(Qwen3 leaves out their thoughts), a new rollout begins, so that every turn is learned after the ids
that inference would send.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Literal

from reasontrain.data.prompts import PROBLEM, Encoder
from reasontrain.data.templates import LOSS_WEIGHT, end_of_text, opening_tag, without_repetition
from reasontrain.types import Message, Problem, Rollout, RunError, TokenKind, UserError, text_of

Learned = Literal["all", "reply", "last"]
TOOL_ROLES = frozenset({"tool", "ipython", "function", "observation"})


@dataclass(frozen=True, kw_only=True)
class WrittenReply:
    """A written reply to a problem.

    Attributes:
        problem: the problem; its own `solution` and `reply` are not read.
        turns: the assistant's turns, and those of tools and users between them.
        loss_weight: one factor for all trained tokens, or one for each.
        learned: the assistant's turns that are learned: those of the prompt too ("all"), those of
            the reply ("reply"), or the last ("last").
    """

    problem: Problem
    turns: tuple[Message, ...]
    loss_weight: float | tuple[float, ...] = 1.0
    learned: Learned = "reply"


@dataclass(frozen=True)
class TrainedTurn:
    """A turn that is learned.

    Attributes:
        number: its index in the conversation, without the recipe's system turn.
        prompt: the text that inference sends before it.
        answer: the text that it consists of, with the token that ends it.
        weight: the factor of its losses.
        context: the kind of the tokens between the trained turn before it and this one.
    """

    number: int
    prompt: str
    answer: str
    weight: float
    context: TokenKind


@dataclass
class _Sequence:
    """A rollout that grows turn by turn; `first` and `last` are numbers of turns."""

    prompt_ids: tuple[int, ...]
    first: int
    last: int
    response_ids: list[int] = field(default_factory=list)
    kinds: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)

    def add(self, ids: Sequence[int], kind: TokenKind, weight: float) -> None:
        self.response_ids += ids
        self.kinds += [int(kind)] * len(ids)
        self.weights += [weight] * len(ids)

    def on(self, rollout: Rollout) -> Rollout:
        """The rollout with these kinds and weights, left empty where all tokens are alike."""
        is_uniform = set(self.kinds) <= {int(TokenKind.RESPONSE)}
        return replace(
            rollout,
            kinds=() if is_uniform else tuple(self.kinds),
            loss_weight=() if set(self.weights) <= {1.0} else tuple(self.weights),
        )

    @property
    def ids(self) -> tuple[int, ...]:
        return (*self.prompt_ids, *self.response_ids)


def reply_of(encoder: Encoder, problem: Problem) -> WrittenReply:
    """The reply that a problem carries; raises UserError if there is none."""
    turns = problem.reply
    if not turns and problem.solution.strip():
        turns = (Message(role="assistant", content=problem.solution),)
    if not any(turn["role"] == "assistant" for turn in turns):
        raise UserError(
            f"{problem.where} has no `solution` or reply to learn from; add one, set "
            f"`task.bad_rows: drop`, or sample with `sample:`"
        )
    return WrittenReply(
        problem=problem,
        turns=turns,
        loss_weight=problem.loss_weight,
        learned=learned_of(encoder, problem),
    )


def learned_of(encoder: Encoder, problem: Problem) -> Learned:
    """The turns that are learned of a demonstration, by the recipe and the row."""
    if encoder.settings.train_on == "last_assistant":
        return "last"
    return "all" if problem.learn_history else "reply"


def trained_turns(encoder: Encoder, reply: WrittenReply) -> list[TrainedTurn]:
    """The turns of a conversation that are learned, as text.

    Raises UserError if a turn is empty or the template drops a part of it.
    """
    problem = reply.problem
    if len(reply.turns) > 1 and encoder.settings.template != PROBLEM:
        raise UserError(
            f"{problem.where} has a reply of several turns, and `prompt.template` applies to a "
            f"single question only; leave it out"
        )
    if not encoder.chat:
        return [_plain_turn(encoder, reply)]
    conversation = encoder.conversation(problem, reply.turns)
    turns = conversation.turns
    num_before = len(turns) - len(reply.turns)
    offset = int(encoder.settings.system is not None)  # the recipe's system turn
    numbers = [
        number
        for number, turn in enumerate(turns)
        if turn["role"] == "assistant" and (reply.learned != "reply" or number >= num_before)
    ]
    for number, turn in enumerate(turns):
        if turn["role"] != "assistant" and turn.get(LOSS_WEIGHT) not in (None, 0, 1):
            raise UserError(
                f"{problem.where}, turn {number + 1 - offset}: `{LOSS_WEIGHT}` stands at a turn of "
                f"role {turn['role']!r}, which is not learned; remove it"
            )
    numbers = numbers[-1:] if reply.learned == "last" else numbers
    for number in numbers:
        if turns[number].get("content") is None:
            encoder.template.check_fields(conversation, number)
    encoder.template.check(conversation.upto(numbers[-1] + 1), numbers)
    trained = []
    previous = num_before
    for number in numbers:
        turn = turns[number]
        where = f"{problem.where}, turn {number + 1 - offset}"
        if number == 0:
            raise UserError(
                f"{where}: the conversation begins with an assistant's turn, which follows no "
                f"prompt; remove the turn, or set prompt.train_on: last_assistant"
            )
        if not text_of(turn).strip() and not (turn.keys() - {"role", "content", LOSS_WEIGHT}):
            raise UserError(f"{where}: the assistant's turn is empty; there is nothing to learn")
        prompt = encoder.template.render(conversation.upto(number), add_generation_prompt=True)
        roles = {each["role"] for each in turns[previous + 1 : number]}
        trained.append(
            TrainedTurn(
                number=number - offset,
                prompt=prompt,
                answer=encoder.template.answer(conversation.upto(number + 1), prompt),
                weight=checked_weight(turn.get(LOSS_WEIGHT), where),
                context=TokenKind.TOOL if roles & TOOL_ROLES else TokenKind.PROMPT,
            )
        )
        previous = number
    return trained


def _plain_turn(encoder: Encoder, reply: WrittenReply) -> TrainedTurn:
    """The reply as text behind the prompt's, with the tokenizer's end-of-text token."""
    problem = reply.problem
    prompt = encoder.text(problem)
    if len(reply.turns) > 1:
        raise UserError(
            f"{problem.where} has a reply of several turns, and the tokenizer has no chat template "
            f"to render them"
        )
    (turn,) = reply.turns
    others = sorted(
        name
        for name, value in turn.items()
        if value and name not in ("role", "content", LOSS_WEIGHT, *encoder.settings.ignored_fields)
    )
    if others:
        raise UserError(
            f"{problem.where}: `{others[0]}` of the reply needs a chat template, and prompts are "
            f"plain; remove it, or name it in `prompt.ignored_fields`"
        )
    text = text_of(turn)
    if not text.strip():
        raise UserError(f"{problem.where}: the reply is empty; there is nothing to learn")
    # A row may bring its whole prompt as text, with the tag that opens the thought.
    header = encoder.settings.template.partition(PROBLEM)[2] or opening_tag(prompt)
    end = end_of_text(encoder.tokenizer)
    answer = without_repetition(header, text).removesuffix(end) + end
    weight = checked_weight(turn.get(LOSS_WEIGHT), problem.where)
    return TrainedTurn(1, prompt, answer, weight, TokenKind.PROMPT)


def checked_weight(value: object, where: str) -> float:
    """A loss weight of a row, 1 if it is None; raises UserError for anything but a number >= 0."""
    if value is None:
        return 1.0
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(f"{where}: `{LOSS_WEIGHT}` is {value!r}; expected a number from 0 upwards")
    if not math.isfinite(value) or value < 0:
        raise UserError(f"{where}: `{LOSS_WEIGHT}` is {value}; expected a number from 0 upwards")
    return float(value)


@dataclass(frozen=True)
class RenderedReply:
    """A reply with its trained turns as text; `placed` is its problem with image placeholders."""

    reply: WrittenReply
    placed: Problem
    turns: list[TrainedTurn]


def render_reply(encoder: Encoder, reply: WrittenReply) -> RenderedReply:
    """The trained turns of a reply; raises UserError if it cannot be rendered."""
    placed = replace(reply, problem=encoder.with_placeholder(reply.problem))
    return RenderedReply(reply, placed.problem, trained_turns(encoder, placed))


def encode_replies(encoder: Encoder, rendered: Sequence[RenderedReply]) -> list[list[Rollout]]:
    """The rollouts of each reply, with ids 0, 1, ... in order.

    One that becomes several rollouts gives them ids `<id>#turn<n>` from the second on. A reply
    that has another number of loss weights than of trained tokens raises UserError, or has no
    rollouts if such rows are dropped.
    """
    turns = [turn for each in rendered for turn in each.turns]
    texts = encoder.encode(
        [text for turn in turns for text in (turn.prompt, turn.prompt + turn.answer)]
    )
    prompts = texts[::2]
    wholes = texts[1::2]
    answers = [
        whole[len(prompt) :] if whole[: len(prompt)] == prompt else ()
        for prompt, whole in zip(prompts, wholes, strict=True)
    ]
    # A token that spans the end of the prompt cannot be sampled: inference begins behind it.
    alone = [index for index, answer in enumerate(answers) if not answer]
    separate = encoder.tokenization.encode_answers([turns[index].answer for index in alone])
    for index, ids in zip(alone, separate, strict=True):
        answers[index] = ids
    encoded = iter(zip(turns, prompts, answers, strict=True))
    sequences = [_join(islice(encoded, len(each.turns))) for each in rendered]
    usable = dict(
        encoder.usable(
            range(len(rendered)),
            lambda index: (index, _rollouts(encoder, rendered[index], sequences[index])),
        )
    )
    return [usable.get(index, []) for index in range(len(rendered))]


def encode_demonstrations(
    encoder: Encoder, problems: Sequence[Problem]
) -> tuple[list[Rollout], int]:
    """The problems' replies as rollouts with ids 0, 1, ..., and the number that were dropped.

    A rollout that is longer than the context is dropped. Raises UserError if a problem has no reply
    or one that the template does not render, a prompt is too long (see `PromptSettings`), or
    nothing fits.
    """
    rendered = encoder.usable(
        problems, lambda problem: render_reply(encoder, reply_of(encoder, problem))
    )
    rollouts = [rollout for each in encode_replies(encoder, rendered) for rollout in each]
    if encoder.settings.too_long == "refuse":
        lengths = [(rollout.problem, len(rollout.prompt_ids)) for rollout in rollouts]
        if any(length > encoder.limit for _, length in lengths):
            raise encoder.too_long(lengths)
    fitting = [
        rollout
        for rollout in rollouts
        if len(rollout.prompt_ids) <= encoder.limit
        and len(rollout.prompt_ids) + len(rollout.response_ids) <= encoder.context
    ]
    if not fitting:
        raise UserError(
            f"none of {len(rollouts)} demonstrations fits into a context of {encoder.context} "
            f"tokens"
        )
    numbered = [replace(rollout, id=i, group=i) for i, rollout in enumerate(fitting)]
    return numbered, len(rollouts) - len(fitting)


def _join(
    turns: Iterable[tuple[TrainedTurn, tuple[int, ...], tuple[int, ...]]],
) -> list[_Sequence]:
    """Sequences of as many turns as their ids allow."""
    sequences: list[_Sequence] = []
    for turn, prompt_ids, answer_ids in turns:
        current = sequences[-1] if sequences else None
        if current is not None and prompt_ids[: len(current.ids)] == current.ids:
            current.add(prompt_ids[len(current.ids) :], turn.context, 1.0)
        else:
            current = _Sequence(prompt_ids, turn.number, turn.number)
            sequences.append(current)
        current.add(
            answer_ids, TokenKind.RESPONSE if turn.weight else TokenKind.MASKED, turn.weight
        )
        current.last = turn.number
    return sequences


def _rollouts(
    encoder: Encoder, rendered: RenderedReply, sequences: Sequence[_Sequence]
) -> list[Rollout]:
    """The sequences of one reply as rollouts, with the row's own loss weight."""
    reply = rendered.reply
    _apply_weight(reply.loss_weight, sequences, reply.problem.where)
    rollouts = []
    for index, sequence in enumerate(sequences):
        problem = _problem_at(reply, sequence)
        if index:
            problem = replace(problem, id=f"{problem.id}#turn{sequence.first + 1}")
        rollout = Rollout(
            problem=problem,
            id=index,
            group=index,
            prompt_ids=encoder.expanded(sequence.prompt_ids, rendered.placed),
            response_ids=tuple(sequence.response_ids),
            text=_text(encoder, reply, sequence),
        )
        rollouts.append(sequence.on(rollout))
    return rollouts


def trained_weights(rollout: Rollout) -> list[float]:
    """The loss weight of each response token, 0 for those that are not learned."""
    weights = list(rollout.loss_weight) or [1.0] * len(rollout.response_ids)
    kinds = rollout.kinds or (TokenKind.RESPONSE,) * len(weights)
    return [
        weight if kind == TokenKind.RESPONSE else 0.0
        for weight, kind in zip(weights, kinds, strict=True)
    ]


def with_loss_weight(rollout: Rollout, loss_weight: float | tuple[float, ...]) -> Rollout:
    """The rollout with its weights multiplied by the row's, one for all tokens or one for each."""
    if loss_weight == 1.0:
        return rollout
    sequence = _Sequence(rollout.prompt_ids, 0, 0)
    sequence.add(rollout.response_ids, TokenKind.RESPONSE, 1.0)
    sequence.kinds = list(rollout.kinds) or sequence.kinds
    sequence.weights = list(rollout.loss_weight) or sequence.weights
    _apply_weight(loss_weight, [sequence], rollout.problem.where)
    return sequence.on(rollout)


def _apply_weight(
    loss_weight: float | tuple[float, ...], sequences: Sequence[_Sequence], where: str
) -> None:
    """Multiply the weights of trained tokens, in order; a token of weight 0 is masked."""
    if loss_weight == 1.0:
        return
    trained = [
        (sequence, index)
        for sequence in sequences
        for index, kind in enumerate(sequence.kinds)
        if kind in (TokenKind.RESPONSE, TokenKind.MASKED)
    ]
    factors = loss_weight if isinstance(loss_weight, tuple) else (loss_weight,) * len(trained)
    if len(factors) != len(trained):
        raise UserError(
            f"{where}: `{LOSS_WEIGHT}` has {len(factors)} numbers, and {len(trained)} tokens are "
            f"trained (`reasontrain show RECIPE --data 1` shows the tokens of a row)"
        )
    for (sequence, index), factor in zip(trained, factors, strict=True):
        sequence.weights[index] *= checked_weight(factor, where)
        if not sequence.weights[index]:
            sequence.kinds[index] = int(TokenKind.MASKED)


def _problem_at(reply: WrittenReply, sequence: _Sequence) -> Problem:
    """The problem whose prompt and reply are those of the sequence."""
    problem = reply.problem
    before: tuple[Message, ...] = (
        (Message(role="user", content=problem.prompt),)
        if isinstance(problem.prompt, str)
        else problem.prompt
    )
    turns = (*before, *reply.turns)
    if (sequence.first, sequence.last) == (len(before), len(turns) - 1):
        return problem
    return replace(
        problem,
        prompt=turns[: sequence.first],
        reply=turns[sequence.first : sequence.last + 1],
        solution="",
    )


def check_prompts(encoder: Encoder, rollout: Rollout) -> int:
    """Compare the ids before each learned turn with those that inference sends.

    Returns:
        The number of prompts that were compared.

    Raises:
        RunError: they differ, with the position.
    """
    ids = (*rollout.prompt_ids, *rollout.response_ids)
    kinds = rollout.kinds or (TokenKind.RESPONSE,) * len(rollout.response_ids)
    own = (TokenKind.RESPONSE, TokenKind.MASKED)
    starts = [
        len(rollout.prompt_ids) + place
        for place, kind in enumerate(kinds)
        if kind in own and (place == 0 or kinds[place - 1] not in own)
    ]
    problem = rollout.problem
    before = 1 if isinstance(problem.prompt, str) else len(problem.prompt)
    prompts = [problem]
    if not problem.reply:  # a solution, or a side of a pair: the first turn is after the prompt
        starts = starts[:1]
    elif len(starts) > 1:
        turns = (*encoder.settings.turns(problem), *problem.reply)
        turns = turns[int(encoder.settings.system is not None) :]
        prompts += [
            replace(problem, prompt=turns[:number], reply=turns[number:])
            for number in range(before + 1, len(turns))
            if turns[number]["role"] == "assistant"
        ]
    if len(prompts) != len(starts):
        raise RunError(
            f"{problem.where}: {len(starts)} turns are learned, and inference has {len(prompts)}"
        )
    for each, start in zip(prompts, starts, strict=True):
        expected = encoder.prompt_ids(each)
        if ids[:start] != expected:
            place = next(
                (i for i, (a, b) in enumerate(zip(ids, expected, strict=False)) if a != b),
                min(start, len(expected)),
            )
            raise RunError(
                f"{problem.where}: the ids before a learned turn differ from what inference sends, "
                f"from token {place} on: {encoder.tokenizer.decode(list(ids[place:start]))!r} and "
                f"{encoder.tokenizer.decode(list(expected[place:]))!r}"
            )
    return len(prompts)


def _text(encoder: Encoder, reply: WrittenReply, sequence: _Sequence) -> str:
    """The response as readers and graders see it."""
    if len(reply.turns) == 1 and sequence.first == sequence.last:
        return text_of(reply.turns[0])
    return str(encoder.tokenizer.decode(sequence.response_ids, skip_special_tokens=True))
