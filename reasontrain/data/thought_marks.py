"""Chains of thought in prompts and responses: the marks around them, and what follows them.

There is no answer before a thought has ended. That it has follows from three things together: the
prompt, which may end inside a thought (DeepSeek-R1's templates write `<think>` themselves) or ask
for one (`enable_thinking`); the response with its marks; and a cut at the length limit.
"""

from __future__ import annotations

import logging
import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from reasontrain.data.rendering import THOUGHT_FIELDS, TemplateFailedError, render
from reasontrain.types import NO_THOUGHT, Message, ThoughtState

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

_NAME = "(?:think|thought|reason|scratchpad|reflection)"
_MARK = re.compile(
    # <think>, </thinking>, <seed:think>, <longcat_think>, <reasoning>
    rf"<(?P<xml_end>/?)(?P<xml>[\w:.-]{{0,20}}{_NAME}[\w:.-]{{0,20}})(?:\s+[\w-]+=[^<>]{{0,60}})?>"
    # <|begin_of_thought|>, <|END_THINKING|>, <|/think|>
    rf"|<[|｜](?P<pipe>[/\w]{{0,20}}{_NAME}[\w]{{0,20}})[|｜]>"
    # Magistral, Kimi, Apertus
    r"|(?-i:\[(?P<bracket_end>/?)THINK(?:ING)?\])|◁(?P<triangle_end>/?)think▷"
    r"|<\|inner_(?P<inner>prefix|suffix)\|>"
    # Gemma 4: <|channel>thought ... <channel|>; gpt-oss: <|channel|>analysis ... <|channel|>final
    r"|<\|channel>(?P<channel>thought)|(?P<channel_end><channel\|>)"
    r"|<\|channel\|>\s{0,2}(?P<harmony>analysis|commentary|final)(?:[^<]{0,200}<\|message\|>)?",
    re.IGNORECASE,
)
FIRST_CHARACTER = re.compile(r"[<\[◁]")
"""The first characters of marks; a search for them alone is faster than one for marks."""
_BARE = re.compile(r"\A(?P<bare>analysis)(?=[A-Z\"'(\d])|(?P<bare_end>assistantfinal)")
"""gpt-oss without its special tokens, as servers and decoders that drop them return it."""
_END = re.compile(r"(?:\A|_)end(?:_|\Z)|\A/", re.IGNORECASE)
_SIDE = re.compile(r"/|(?:\A|_)(?:begin|start|end|of)(?=_|\Z)|_", re.IGNORECASE)
_BEGIN = re.compile(r"(?<![A-Za-z])(?:begin|start)(?![A-Za-z])", re.IGNORECASE)
_TAIL_TOKENS = 48
"""Tokens at the end of a prompt that are searched for a thought that it opens."""
_QUESTION_TAIL = 24
"""Characters at the end of a question that mark where the template goes on after it."""
_THOUGHT = "a7thought7a"
_ANSWER = "b9answer9b"
_TAG = re.compile(r"[<\[◁【][^'\"]{1,80}[>\]▷】]")
"""A mark of a template, in contrast to a list of parts that it prints as Python would."""
_CHANNELS = ("<|channel|>", "<|message|>", "<|channel>", "<channel|>")


class Mark(NamedTuple):
    """A mark in a text: the kind of thought that it opens or closes, and its position."""

    kind: str
    closes: bool
    start: int
    end: int


class Reading(NamedTuple):
    """The part of a response after its thoughts.

    Attributes:
        start: index of the first character of the answer; 0 without a thought.
        unfinished: a thought has not ended, so there is no answer.
        end: index of the end of the answer; None if it is the end of the response.
    """

    start: int
    unfinished: bool
    end: int | None = None


@dataclass(frozen=True)
class Marks:
    """The marks of a model: those that are in use, and a pair of its own.

    Attributes:
        opening: an opening that only this model's chat template writes; None without one.
        closing: the end that belongs to it.
        special: a mark contains special tokens, which are dropped from decoded text.
    """

    opening: str | None = None
    closing: str | None = None
    special: bool = False

    def find(self, text: str) -> list[Mark]:
        """Find all marks of a text, in order."""
        marks: list[Mark] = []
        end = 0
        for first in FIRST_CHARACTER.finditer(text):
            match = _MARK.match(text, first.start()) if first.start() >= end else None
            if match:
                marks.append(_read_mark(match))
                end = match.end()
        if text.startswith("analysis") or "assistantfinal" in text:
            marks += [_read_mark(match) for match in _BARE.finditer(text)]
        for literal, closes in ((self.opening, False), (self.closing, True)):
            if literal:
                marks += [
                    Mark("own", closes, match.start(), match.end())
                    for match in re.finditer(re.escape(literal), text)
                ]
        marks.sort(key=lambda mark: mark.start)
        return marks

    def read(
        self,
        text: str,
        *,
        truncated: bool = False,
        state: ThoughtState = NO_THOUGHT,
        stops: Sequence[int] = (),
    ) -> Reading:
        """Find the answer of a response.

        Args:
            text: the response, with its marks.
            truncated: the response was cut at its length limit.
            state: the state in which the prompt left the thought.
            stops: positions, in order, at which the response may end; the first outside of thoughts
                ends it.

        Returns:
            The start and the end of the answer, and whether a thought did not end.
        """
        open_kinds = [] if state.open_kind is None else [state.open_kind]
        start = 0
        marks = self.find(text)
        for mark in marks:
            if not mark.closes:
                stop = None if open_kinds else _first_after(stops, start)
                if stop is not None and stop < mark.start:
                    return Reading(start=start, unfinished=False, end=stop)
                open_kinds.append(mark.kind)
                continue
            if mark.kind in open_kinds:
                # from the first of its kind: a thought may quote its own opening
                del open_kinds[open_kinds.index(mark.kind) :]
            elif mark.kind == "bare":
                continue
            # a response that closes what it has not opened continues a thought of its prompt
            if not open_kinds:
                start = mark.end
        unmarked = state.expected and truncated and not marks
        unfinished = bool(open_kinds) or unmarked
        end = None if unfinished else _first_after(stops, start)
        return Reading(start=start, unfinished=unfinished, end=end)

    def state(self, tail: str, *, chat: bool, thinking: bool | None) -> ThoughtState:
        """Return the state in which a prompt leaves the thought.

        Args:
            tail: the prompt's text after the question; without a template, any end of it.
            chat: a chat template wrote the tail.
            thinking: the setting `enable_thinking`.

        Returns:
            An open kind if the tail opens a thought and does not close it; `expected` if thinking
            is enabled and the tail has no mark.
        """
        marks = self.find(tail)
        if not marks:
            return ThoughtState(expected=bool(thinking))
        last = marks[-1]
        # in a plain text, a mark before the end may be part of an instruction
        is_open = not last.closes and (chat or not tail[last.end :].strip())
        return ThoughtState(open_kind=last.kind if is_open else None)


KNOWN = Marks()
"""The marks in use, for texts whose model is unknown."""


def _first_after(positions: Sequence[int], start: int) -> int | None:
    index = bisect_left(positions, start)
    return positions[index] if index < len(positions) else None


def _read_mark(match: re.Match[str]) -> Mark:
    kind, closes = _kind(match)
    return Mark(kind, closes, match.start(), match.end())


def _kind(mark: re.Match[str]) -> tuple[str, bool]:
    """The kind of thought of a mark, and True if it closes one."""
    # the last group that took part names the spelling
    spelling = str(mark.lastgroup)
    text = mark[spelling]
    match spelling:
        case "xml":
            return text.lower(), bool(mark["xml_end"])
        case "pipe":
            return f"|{_SIDE.sub('', text).lower()}", _END.search(text) is not None
        case "bracket_end":
            return "[think]", bool(text)
        case "triangle_end":
            return "◁think▷", bool(text)
        case "inner":
            return "inner", text.lower() == "suffix"
        case "harmony":
            return "harmony", text.lower() == "final"
        case "bare" | "bare_end":
            return "bare", spelling == "bare_end"
        case _:
            return "channel", spelling == "channel_end"


def closing_of(opening: str, marks: Marks = KNOWN) -> str | None:
    """The mark that ends a thought which this one opens; None if no single text does (gpt-oss)."""
    if opening.strip() == marks.opening:
        return marks.closing
    mark = _MARK.fullmatch(opening)
    if mark is None:
        return None
    match mark.lastgroup:
        case "xml":
            return f"</{mark['xml']}>"
        case "pipe":
            name = _BEGIN.sub(lambda word: "END" if word[0].isupper() else "end", mark["pipe"])
            bar = opening[1]
            return f"<{bar}{name if name != mark['pipe'] else f'/{name}'}{bar}>"
        case "bracket_end" | "triangle_end":
            return f"{opening[0]}/{opening[1:]}"
        case "inner":
            return opening.replace("prefix", "suffix")
        case "channel":
            return "<channel|>"
        case _:
            return None


def marks_of(tokenizer: PreTrainedTokenizerBase) -> Marks:
    """The marks of a tokenizer's model, from its chat template and its special tokens."""
    return _marks_of(tokenizer, str(tokenizer.chat_template or ""))


@lru_cache(maxsize=8)
def _marks_of(tokenizer: PreTrainedTokenizerBase, template: str) -> Marks:
    pair = _pair(tokenizer) if template else None
    # a pair that the known marks cover adds nothing
    opening, closing = pair if pair and not KNOWN.find(pair[1]) else (None, None)
    special = any(
        token in _CHANNELS or _MARK.search(token) or token in f"{opening}{closing}"
        for token in _special_tokens(tokenizer)
    )
    return Marks(opening, closing, special)


def _special_tokens(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The texts of all tokens that decoding with `skip_special_tokens` drops."""
    return sorted(
        {
            *tokenizer.all_special_tokens,
            *(str(t) for t in tokenizer.added_tokens_decoder.values() if t.special),
        }
    )


def _pair(tokenizer: PreTrainedTokenizerBase) -> tuple[str, str] | None:
    """The marks that a chat template writes around a turn's thought; None if it writes none."""
    question: Message = {"role": "user", "content": "?"}
    parts = [{"type": "thinking", "thinking": _THOUGHT}, {"type": "text", "text": _ANSWER}]
    answers: list[Message] = [
        {"role": "assistant", "content": _ANSWER, name: _THOUGHT} for name in THOUGHT_FIELDS
    ]
    answers.append({"role": "assistant", "content": parts})
    try:
        header = render(tokenizer, [question], where="a question", add_generation_prompt=True)
    except TemplateFailedError as error:
        logger.info(f"thoughts are recognised by the usual marks alone: {error}")
        return None
    for answer in answers:
        try:
            text = render(
                tokenizer, [question, answer], where="an answer", add_generation_prompt=False
            )
        except TemplateFailedError:
            continue  # the template knows no such field, or no lists of parts
        before, thought, after = text.partition(_THOUGHT)
        between, answered, _ = after.partition(_ANSWER)
        closing = between.strip()
        if not thought or not answered or not _TAG.fullmatch(closing):
            continue
        common = len(_common(before, header))
        # a template whose generation prompt opens the thought leaves its last word for the mark
        opening = before[common:].strip() or (before.split() or [""])[-1]
        return (opening, closing) if _TAG.search(opening) else None
    return None


def _common(one: str, other: str) -> str:
    """The longest common start of two texts."""
    for index, (left, right) in enumerate(zip(one, other, strict=False)):
        if left != right:
            return one[:index]
    return min(one, other, key=len)


def prompt_state(
    tokenizer: PreTrainedTokenizerBase,
    ids: tuple[int, ...],
    *,
    question: str,
    chat: bool,
    thinking: bool | None,
) -> ThoughtState:
    """Return the state in which an encoded prompt leaves the thought.

    Args:
        tokenizer: the model's tokenizer.
        ids: the ids of the prompt.
        question: the last turn of the conversation, whose own marks open nothing.
        chat: a chat template wrote the prompt.
        thinking: the setting `enable_thinking`.

    Returns:
        The state, from the text that follows the question.
    """
    tail = str(tokenizer.decode(list(ids[-_TAIL_TOKENS:]), skip_special_tokens=False))
    last = question.strip()[-_QUESTION_TAIL:]
    if chat and last and last in tail:
        tail = tail[tail.rindex(last) + len(last) :]
    return marks_of(tokenizer).state(tail, chat=chat, thinking=thinking)


def decode(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    """Decode a response without its special tokens, except those that mark thoughts."""
    marks = marks_of(tokenizer)
    if marks.special:
        text = str(tokenizer.decode(ids, skip_special_tokens=False))
        located = marks.find(text)
        if located:
            return "".join(_without_special(tokenizer, text, located))
    plain = tokenizer.decode(ids, skip_special_tokens=True)
    assert isinstance(plain, str)
    return plain


def _without_special(
    tokenizer: PreTrainedTokenizerBase, text: str, marks: list[Mark]
) -> Iterator[str]:
    """The parts of a text, without special tokens outside of marks."""
    special = re.compile("|".join(map(re.escape, _special_tokens(tokenizer))))
    position = 0
    for mark in marks:
        yield special.sub("", text[position : mark.start])
        yield text[max(position, mark.start) : mark.end]
        position = max(position, mark.end)
    yield special.sub("", text[position:])
