"""Chat templates: conversations -> text, with a check that everything in a row is rendered.

A template writes the text that a model is shown, and the token that ends an answer. What is learned
from a written answer is the difference between two texts: the prompt, as inference sends it, and
the prompt with the answer.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from reasontrain.data.rendering import THOUGHT_FIELDS, TemplateFailedError, render
from reasontrain.data.thought_marks import (
    FIRST_CHARACTER,
    KNOWN,
    Mark,
    Marks,
    closing_of,
    marks_of,
)
from reasontrain.types import Message, UserError, text_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

LINKS = frozenset({"id", "tool_call_id"})
"""Fields that only connect a call with its result; few templates write them."""
LOSS_WEIGHT = "loss_weight"
"""The field of a turn that is for the loss and not for the template."""
PROBE = "qj7"
"""A text that stands in no template."""


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """Turns and the other variables of a chat template; `where` names the row in errors."""

    turns: tuple[Message, ...]
    where: str
    tools: tuple[Mapping[str, object], ...] = ()
    kwargs: Mapping[str, object] | None = None

    def upto(self, num: int) -> Conversation:
        """The first turns."""
        return replace(self, turns=self.turns[:num])

    def with_turn(self, index: int, turn: Message) -> Conversation:
        """The same conversation with another turn in this place."""
        return replace(self, turns=(*self.turns[:index], turn, *self.turns[index + 1 :]))


class ChatTemplate:
    """The chat template of a tokenizer."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        stop_ids: frozenset[int] = frozenset(),
        ignored_fields: Sequence[str] = (),
    ) -> None:
        """Wrap the template of a tokenizer that has one.

        Args:
            tokenizer: the model's tokenizer.
            stop_ids: ids that end a response for the sampler.
            ignored_fields: fields of turns that do not reach the template.
        """
        self.tokenizer = tokenizer
        self.stop_ids = stop_ids
        self.ignored = frozenset(ignored_fields) | {LOSS_WEIGHT}
        self._reported = False
        self._checked: set[tuple[str, bool, bool]] = set()

    # ---- rendering

    def render(self, conversation: Conversation, *, add_generation_prompt: bool) -> str:
        """The text of a conversation.

        Args:
            conversation: at least one turn.
            add_generation_prompt: end with the header of an answer.

        Raises:
            TemplateFailedError: the template refuses the conversation.
        """
        return render(
            self.tokenizer,
            [self._visible(turn) for turn in conversation.turns],
            where=conversation.where,
            add_generation_prompt=add_generation_prompt,
            tools=conversation.tools,
            kwargs=conversation.kwargs,
        )

    def _visible(self, turn: Message) -> Message:
        """The turn without fields that the template does not get.

        Data sets fill missing fields with None, which a template that asks `is defined` takes for
        a value.
        """
        return {
            name: value
            for name, value in turn.items()
            if name in ("role", "content") or (name not in self.ignored and value is not None)
        }

    # ---- a written answer

    def answer(self, conversation: Conversation, prompt: str) -> str:
        """The text that the model is to write after `prompt`, with the token that ends it.

        Args:
            conversation: turns, of which the last is the assistant's.
            prompt: the turns before it, rendered with a generation prompt.

        Returns:
            What the template adds to the prompt, up to the token that ends the turn. If the
            template does not show the thought of a last turn, or opens one in the prompt that it
            does not write into turns, the turn's own text takes its place.

        Raises:
            UserError: a part of the turn is not rendered, or the rendering does not begin with its
                prompt.
        """
        number = len(conversation.turns) - 1
        turn = conversation.turns[number]
        before = conversation.upto(number)
        whole = self.render(conversation, add_generation_prompt=False)
        if not whole.startswith(prompt):
            return self._composed(conversation, whole, prompt, self._header(before, prompt))
        text = whole[len(prompt) :]
        pieces = self._pieces(turn)
        lost = [piece for piece in pieces if not self._shows(conversation, text, piece)]
        if lost and pieces[-1] in lost:
            raise UserError(
                f"{conversation.where}, turn {number + 1}: the chat template does not render the "
                f"content of the assistant's turn; use a template that does"
            )
        self._check_text(conversation, number, whole)
        if lost:
            return self._composed(conversation, whole, prompt, self._header(before, prompt))
        self.check_fields(conversation, number)
        if _may_repeat(prompt, text):
            text = without_repetition(self._header(before, prompt), text)
        self._check_one_thought(conversation, prompt, text)
        return self._ended(conversation, text)

    def _check_one_thought(self, conversation: Conversation, prompt: str, text: str) -> None:
        """Raise UserError if a prompt ends with a thought and the answer begins with another."""
        last = _mark_at_end(self.marks, prompt)
        first = next(iter(self.marks.find(text.lstrip())), None)
        reopened = first is not None and first.start == 0 and not first.closes
        if last is not None and last.closes and reopened:
            raise UserError(
                f"{conversation.where}, turn {len(conversation.turns)}: the prompt ends with an "
                f"empty thought, and the reply has another one; leave out "
                f"prompt.enable_thinking: false, or the thought"
            )

    def _header(self, before: Conversation, prompt: str) -> str:
        """The generation prompt: the end of `prompt` that is not written without it."""
        if not before.turns:
            return prompt
        try:
            without = self.render(before, add_generation_prompt=False)
        except TemplateFailedError:
            return ""
        return prompt[len(without) :] if prompt.startswith(without) else ""

    def _composed(self, conversation: Conversation, whole: str, prompt: str, header: str) -> str:
        """The turn's own text after a prompt that its rendering does not continue.

        Templates of reasoning models open a thought in the prompt, or close an empty one, and leave
        thoughts out of finished turns (DeepSeek-R1).
        """
        number = len(conversation.turns) - 1
        turn = conversation.turns[number]
        where = f"{conversation.where}, turn {number + 1}"
        other_fields = set(self._fields(turn)) - set(THOUGHT_FIELDS)
        same_turns = bool(header) and whole.startswith(prompt[: len(prompt) - len(header)])
        if not same_turns or other_fields or not isinstance(turn.get("content"), str | None):
            raise UserError(
                f"{where}: the conversation as the chat template renders it does not begin with "
                f"its prompt, which ends with {prompt[-40:]!r}, or lacks a part of the turn; use "
                f"another template, or another prompt.enable_thinking"
            )
        text = text_of(turn)
        thought = next((str(turn[name]) for name in THOUGHT_FIELDS if turn.get(name)), "")
        opened = _open_mark(self.marks, header)
        if thought and not opened:
            self.check_fields(conversation, number)  # names the field if it is not rendered
        opening = header[opened.start : opened.end] if opened else "<think>"
        closing = closing_of(opening, self.marks)
        if thought and closing and not self.marks.find(text):
            text = f"{opening}\n{thought.strip()}\n{closing}\n\n{text.lstrip()}"
        if opened and not _ends_thought(self.marks, opened, text):
            fields = f"as reasoning_content, or inside {opening} and {closing} in the content"
            raise UserError(
                f"{where}: the prompt opens a thought with {opening}, and the reply has none; add "
                f"it ({fields if closing else 'in the content'}){self._or_no_thinking()}"
            )
        text = without_repetition(header, text)
        self._check_one_thought(conversation, prompt, text)
        return self._ended(conversation, text + self._ending(conversation))

    def _or_no_thinking(self) -> str:
        """The other remedy for a reply without a thought, if the template knows it."""
        knows = "enable_thinking" in str(self.tokenizer.chat_template)
        return " or set prompt.enable_thinking: false" if knows else ""

    def _ending(self, conversation: Conversation) -> str:
        """The text that the template writes after the content of the last turn."""
        number = len(conversation.turns) - 1
        role = conversation.turns[number]["role"]
        probe = conversation.with_turn(number, {"role": role, "content": PROBE})
        return self.render(probe, add_generation_prompt=False).rpartition(PROBE)[2]

    # ---- the end of a turn

    def _ended(self, conversation: Conversation, text: str) -> str:
        """The text up to the token that ends the turn, which is added if the template has none.

        The first of these that there is: a special token that the template writes after the turn,
        with nothing but special tokens and white space behind it; the special token that begins
        the next turn, if the sampler stops at it (GLM); the tokenizer's end-of-text token.
        """
        end = self._end_in(text)
        if end is not None:
            return text[:end]
        following = self._begin_of_next(conversation)
        if following is not None:
            return text + following
        end_token = end_of_text(self.tokenizer, "the chat template ends no turn, and ")
        if not self._reported:
            logger.info(
                f"the chat template writes no token that ends an answer; replies end with "
                f"{end_token}"
            )
            self._reported = True
        return text + end_token

    def _end_in(self, text: str) -> int | None:
        """The offset behind the token that ends a turn; None if the text ends with no token."""
        tail = self._tail(text)
        ends = [offset for offset, token in tail if token in self.answer_ends]
        return next(iter(ends or [offset for offset, _ in tail]), None)

    def _tail(self, text: str, tokens: Sequence[str] = ()) -> list[tuple[int, str]]:
        """The tokens at the end of a text and the offsets behind them, in order.

        Nothing but white space stands between them. `tokens` are looked for, the special ones and
        the end of an answer by default.
        """
        tokens = tokens or self._ends_of_turns
        tail: list[tuple[int, str]] = []
        end = len(text)
        while True:
            while end and text[end - 1].isspace():
                end -= 1
            token = next((token for token in tokens if text.endswith(token, 0, end)), None)
            if token is None:
                return tail[::-1]
            tail.append((end, token))
            end -= len(token)

    def _begin_of_next(self, conversation: Conversation) -> str | None:
        """The text up to a token that begins the next turn and ends this one for the sampler."""
        number = len(conversation.turns) - 1
        last = conversation.turns[number]
        # Without a thought, which templates leave out as soon as another turn follows.
        probe = conversation.with_turn(
            number, {k: v for k, v in last.items() if k not in THOUGHT_FIELDS} | {"content": PROBE}
        )
        role = "tool" if last.get("tool_calls") else "user"
        longer = replace(probe, turns=(*probe.turns, {"role": role, "content": "x"}))
        try:
            whole = self.render(probe, add_generation_prompt=False)
            following = self.render(longer, add_generation_prompt=False)
        except TemplateFailedError:
            return None
        if not following.startswith(whole):
            return None
        following = following[len(whole) :]
        begin = following.lstrip()
        gap = following[: len(following) - len(begin)]
        for token in self.special:
            is_stop = self.tokenizer.convert_tokens_to_ids(token) in self.stop_ids
            if is_stop and begin.startswith(token):
                return gap + token
        return None

    @cached_property
    def marks(self) -> Marks:
        """The marks around the thoughts of this model."""
        return marks_of(self.tokenizer)

    def _pieces(self, turn: Message) -> list[str]:
        """The texts of a turn: its thought and its answer."""
        text = text_of(turn)
        pieces = []
        start = 0
        for mark in self.marks.find(text):
            pieces.append(text[start : mark.start].strip())
            start = mark.end
        pieces.append(text[start:].strip())
        return [piece for piece in pieces if piece]

    @cached_property
    def special(self) -> tuple[str, ...]:
        """The texts of the tokenizer's special tokens, the longest first."""
        tokens = {
            token.content for token in self.tokenizer.added_tokens_decoder.values() if token.special
        }
        tokens |= {str(token) for token in self.tokenizer.all_special_tokens}
        return tuple(sorted(tokens, key=lambda token: (-len(token), token)))

    @cached_property
    def answer_ends(self) -> frozenset[str]:
        """Special tokens that end a plain answer, or end a response for the sampler."""
        stops = self.tokenizer.convert_ids_to_tokens(sorted(self.stop_ids))
        return frozenset(stops) | frozenset(self._probed_ends())

    @cached_property
    def _plain_end(self) -> tuple[str, ...]:
        """The added token that ends an answer in text, if there is one; it need not be special."""
        added = {token.content for token in self.tokenizer.added_tokens_decoder.values()}
        tokens = sorted(added | set(self.special), key=lambda token: (-len(token), token))
        answer: Message = {"role": "assistant", "content": PROBE}
        return tuple(token for _, token in self._tail(self._probed(answer), tokens)[:1])

    @cached_property
    def _ends_of_turns(self) -> tuple[str, ...]:
        """Tokens that may end a turn, the longest first."""
        tokens = {*self.special, *self._plain_end}
        return tuple(sorted(tokens, key=lambda token: (-len(token), token)))

    def _probed_ends(self) -> Iterator[str]:
        """The tokens that end an answer in text and a call of a tool."""
        yield from self._plain_end
        call = {"type": "function", "function": {"name": PROBE, "arguments": {"x": 1}}}
        answer: Message = {"role": "assistant", "content": "", "tool_calls": [call]}
        tail = [token for _, token in self._tail(self._probed(answer))]
        # The text of a call may end with a special token of its own: `</tool_call><|im_end|>`.
        if not set(tail) & set(self._plain_end):
            yield from tail[-1:]

    def _probed(self, answer: Message) -> str:
        """The text behind the probe in a rendered answer; "" if the template writes no probe."""
        try:
            turns: tuple[Message, ...] = ({"role": "user", "content": "x"}, answer)
            conversation = Conversation(turns=turns, where="probe")
            text = self.render(conversation, add_generation_prompt=False)
        except TemplateFailedError:
            return ""
        before, _, after = text.rpartition(PROBE)
        return after if before else ""

    @property
    def end_of_answer(self) -> str | None:
        """The token that the template writes after an answer in text; None if it writes none."""
        return next(iter(self._plain_end), None)

    def end_ids(self) -> frozenset[int]:
        """Ids of the tokens that the template ends an answer with."""
        return frozenset(
            int(self.tokenizer.convert_tokens_to_ids(token)) for token in self._probed_ends()
        )

    # ---- what is not rendered

    def check(self, conversation: Conversation, learned: Collection[int] = ()) -> None:
        """Raise UserError for tools, or a field or text of a turn, that the template drops.

        Args:
            conversation: the prompt, or all turns up to the last that is learned.
            learned: numbers of turns that `answer` checks.
        """
        for index in range(len(conversation.turns)):
            if index not in learned:
                self.check_fields(conversation, index)
        without_tools = replace(conversation, tools=())
        if conversation.tools and self._rendered(without_tools) == self._rendered(conversation):
            raise UserError(
                f"{conversation.where}: the chat template does not render `tools`; use a template "
                f"that does, or remove them"
            )
        for index, turn in enumerate(conversation.turns):
            if turn["role"] != "assistant" and text_of(turn).strip():
                self._check_content(conversation, index)

    def _rendered(self, conversation: Conversation) -> str:
        """The text of a prompt or of a conversation that ends with a reply."""
        is_prompt = conversation.turns[-1]["role"] != "assistant"
        return self.render(conversation, add_generation_prompt=is_prompt)

    def _check_content(self, conversation: Conversation, index: int) -> None:
        """Raise UserError if the template drops the content of a turn, or prints a list.

        One turn of each kind is looked at: the probe costs two renderings.
        """
        turn = conversation.turns[index]
        content = turn["content"]
        kind = (str(turn["role"]), index == 0, isinstance(content, str))
        if kind in self._checked:
            return
        shown = self._rendered(conversation)
        probe = {**turn, "content": PROBE if isinstance(content, str) else []}
        if self._rendered(conversation.with_turn(index, probe)) == shown:
            raise UserError(
                f"{conversation.where}, turn {index + 1}: the chat template does not render turns "
                f"of role {turn['role']!r}; use a template that does, or remove the turn"
            )
        self._check_text(conversation, index, shown)
        self._checked.add(kind)

    def _check_text(self, conversation: Conversation, index: int, shown: str) -> None:
        """Raise UserError if the template prints the parts of a turn as a list."""
        content = conversation.turns[index].get("content")
        if isinstance(content, list) and str(content) in shown:
            raise UserError(
                f"{conversation.where}, turn {index + 1}: the chat template takes text, and the "
                f"content is a list of parts; write their text as one"
            )

    def check_fields(self, conversation: Conversation, index: int) -> None:
        """Raise UserError for a field of this turn that makes no difference to the rendering."""
        turn = conversation.turns[index]
        fields = self._fields(turn)
        if not fields:
            return
        upto = conversation.upto(index + 1)
        try:
            shown = self.render(upto, add_generation_prompt=False)
        except TemplateFailedError:
            if turn.get("content") is not None:
                raise
            # A template that knows no calls of tools fails on their turn, which has no content.
            turn = {**turn, "content": ""}
            shown = self.render(upto.with_turn(index, turn), add_generation_prompt=False)
        dropped = []
        for name in fields:
            rest = {key: value for key, value in turn.items() if key != name}
            try:
                without = self.render(upto.with_turn(index, rest), add_generation_prompt=False)
            except TemplateFailedError:
                continue  # the template cannot do without the field, so it reads it
            if without == shown:
                dropped.append(name)
        if dropped:
            raise UserError(
                f"{conversation.where}, turn {index + 1}: the chat template does not render "
                f"{', '.join(f'`{name}`' for name in dropped)} of the {turn['role']}'s turn; use a "
                f"template that does, remove the field, or name it in `prompt.ignored_fields`"
            )

    def _fields(self, turn: Message) -> list[str]:
        """The fields that a template must show: not empty, and no bare links between turns."""
        is_result = turn["role"] in ("tool", "ipython", "function", "observation")
        return [
            name
            for name, value in self._visible(turn).items()
            if name not in ("role", "content", *LINKS)
            and not (is_result and name == "name")
            and value not in ("", [], {}, ())
        ]

    def _shows(self, conversation: Conversation, text: str, piece: str) -> bool:
        """True if this piece of the last turn's content stands in `text` or changes it."""
        if piece in text:
            return True
        number = len(conversation.turns) - 1
        turn = conversation.turns[number]
        content = turn.get("content")
        if not isinstance(content, str):
            return False
        probe = {**turn, "content": content.replace(piece, PROBE)}
        whole = self.render(conversation.with_turn(number, probe), add_generation_prompt=False)
        return not whole.endswith(text)


def end_of_text(tokenizer: PreTrainedTokenizerBase, reason: str = "") -> str:
    """The tokenizer's end-of-text token; raises UserError if there is none."""
    if tokenizer.eos_token is None:
        raise UserError(
            f"{reason}the tokenizer has no end-of-text token (eos_token) to end responses with; "
            f"use another model"
        )
    return str(tokenizer.eos_token)


def _mark_at_end(marks: Marks, text: str) -> Mark | None:
    """The mark that a text ends with, white space apart."""
    last = next(reversed(marks.find(text)), None)
    return last if last is not None and not text[last.end :].strip() else None


def _open_mark(marks: Marks, prompt: str) -> Mark | None:
    """The mark at the end of a prompt that opens a thought."""
    last = _mark_at_end(marks, prompt)
    return last if last is not None and not last.closes else None


def _ends_thought(marks: Marks, opened: Mark, text: str) -> bool:
    """True if the text has the mark that ends this kind of thought."""
    return any(mark.closes and mark.kind == opened.kind for mark in marks.find(text))


def _may_repeat(prompt: str, text: str) -> bool:
    """True if the text begins with something that the prompt ends with."""
    tail = prompt.rstrip()[-200:]
    text = text.lstrip()
    start = tail.find(text[0]) if text else -1
    while start >= 0:
        if text.startswith(tail[start:]):
            return True
        start = tail.find(text[0], start + 1)
    return False


def opening_tag(prompt: str) -> str:
    """The tag that opens a thought at the end of a prompt and the space behind it; "" without."""
    opened = _open_mark(KNOWN, prompt)
    return prompt[opened.start :] if opened else ""


def without_repetition(header: str, text: str) -> str:
    """The text without a beginning that repeats the end of the generation prompt.

    A repetition is the whole header, or an end of it that begins with a tag: `<think>`, an empty
    thought.
    """
    end = header.rstrip()
    gap = header[len(end) :]
    stripped = text.lstrip()
    starts = sorted({0, *(match.start() for match in FIRST_CHARACTER.finditer(end))})
    for start in starts:
        repeated = end[start:].lstrip()
        if repeated and stripped.startswith(repeated):
            rest = stripped[len(repeated) :]
            return rest.lstrip("\n") if "\n" in gap else rest
    return text
