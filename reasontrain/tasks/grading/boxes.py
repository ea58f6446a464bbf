r"""Boxes: the content of `\boxed{}`, `\fbox{}` and `\framebox{}`, one or several as one answer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from reasontrain.tasks.grading import units_after
from reasontrain.tasks.grading.languages import ALTERNATIVES, ANDS, HEDGES, ORS, RETRACTIONS

LONGEST_CONNECTION = 80
"""Characters between two boxes that may connect them."""
MAX_BOXES = 200
"""Boxes from the end of a text that are looked at."""

_BOX = re.compile(r"box(?:ed)?(?:\s*\{|\s+(?=[\w+-]))")
_BARE = re.compile(r"[\w+-][\w.+/-]*(?<!\.)")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_UNCLOSED = re.compile(r"(?:\\?f?boxed|\\fbox|\\framebox)\s*\{(?!\s*\})|\\boxed\s+(?=[\w+-])")
"""A box that is not empty, after the last one that is closed."""

_ANDS = frozenset(ANDS)
_ORS = frozenset((*ORS, *ALTERNATIVES))
_PHRASES = "|".join(re.escape(word) for word in (*ANDS, *ORS) if " " in word)
# vowel signs of Indian scripts and Thai are no letters to `re`
_LETTER = r"(?:[^\W\d_]|[\u0900-\u0dff\u0e30-\u0e4e])"
_CONNECTION = re.compile(
    r"(?P<label>\(?(?:[a-zA-Z]|[ivx]{1,4}|\d{1,2})\)[:.]?|\d{1,2}\.(?=\s)|[a-zA-Z]:(?=\s)"
    r"|(?:[Pp]art|[Qq]uestion|[Ff]or)\s+(?:\(?[a-zA-Z\d]{1,2}\)|[a-hA-H\d]\b)[:.]?)"
    r"|(?P<separator>\n\s*[-•]\s+|[,;/、，；]|\\[,;](?!\w))"
    r"|(?P<space>\s+|[$*_&~()]|\\[()\[\]!:> ]|\\\\|\\q?quad(?![a-zA-Z])"
    r"|\\(?:text|mbox|textbf|textit|mathrm)\s*\{|\}|\\(?:hspace|vspace)\{[^{}]{0,12}\})"
    r"|(?P<end>[.。।!])"
    r"|(?P<name>(?:\\[a-zA-Z]+|[a-zA-Z]{1,2})(?:_\{?\w+\}?|\([a-zA-Z\d]\))?\s*(?:=|\\approx))"
    rf"|(?P<word>{_PHRASES}|{_LETTER}+(?:['’-]{_LETTER}+)*)"
)
_PARAGRAPH = re.compile(r"\n[^\S\n]*\n")
_NEGATED = re.compile(
    r"(?:\bnot|n't|\brather than|\binstead of|\bnicht|\bpas|不是|ではなく)\s*(?:[$*]|\\[(\[]|\s)*$",
    re.IGNORECASE,
)
_TAKEN_BACK = re.compile(
    r"(?:[$*\s]|\\[)\]])*(?:is|was|would be)\s+"
    r"(?:wrong|incorrect|not\s+(?:the|correct|right|it|a\s+solution)\b)",
    re.IGNORECASE,
)


class Box(NamedTuple):
    """A box: its span in the text and its content."""

    start: int
    end: int
    content: str


def last(text: str) -> Box | None:
    r"""Return the last box that is closed and not empty; None if there is none.

    Boxes that a short connection joins (`\boxed{1}, \boxed{2}`, `(a) \boxed{3} and (b) \boxed{4}`)
    are one answer, a list. A box that is denied (`not \boxed{5}`, `\boxed{5} is wrong`) is none.
    """
    if "box" not in text:
        return None
    boxes = list(_boxes(text, _first_of_last(text)))
    claimed = [box for box in boxes if not _is_denied(text, box)]
    if not claimed:
        return None
    contents = [_with_unit(text, claimed[-1])]
    start = claimed[-1].start
    joints = set()
    for box in reversed(claimed[:-1]):
        joint = _joint(text, box.end, start)
        if joint is None:
            break
        joints.add(joint)
        contents.append(_with_unit(text, box))
        start = box.start
    contents.reverse()
    if "label" not in joints:
        contents = list(dict.fromkeys(contents))
    separator = " or " if joints == {"or"} else ", "
    return Box(start, claimed[-1].end, separator.join(contents))


def is_unclosed(text: str) -> bool:
    """Return True if a box begins in a text that has no closed one."""
    return _UNCLOSED.search(text) is not None


def connects(text: str) -> bool:
    """Return True if a text after a box leads to another one."""
    is_short = 0 < len(text.strip()) <= len(text) <= LONGEST_CONNECTION
    return is_short and _joint(text, 0, len(text)) is not None


def _first_of_last(text: str) -> int:
    """Return the position at which the last `MAX_BOXES` boxes begin."""
    if text.count("box") <= MAX_BOXES:
        return 0
    position = len(text)
    for _ in range(MAX_BOXES):
        position = text.rfind("box", 0, position)
    return position


def _boxes(text: str, position: int) -> Iterator[Box]:
    """Yield the outermost closed boxes from a position that are not empty, in order."""
    closing: dict[int, int] | None = None
    while match := _BOX.search(text, position):
        position = match.end()
        start = _command_start(text, match)
        if start is None:
            continue
        if match.group().endswith("{"):
            opening = match.end() - 1
            end = _closing_brace(text, opening) if closing is None else closing.get(opening)
            if end is None:
                # after one box that is not closed, a table of all braces keeps the time linear
                if closing is None:
                    closing = _closing_braces(text)
                continue
            content = text[position:end]
            position = end + 1
        else:
            bare = _BARE.match(text, position)
            assert bare is not None, "the pattern of boxes looks ahead for a bare argument"
            content = bare.group()
            position = bare.end()
        if content.strip():
            yield Box(start, position, content.strip())


def _command_start(text: str, match: re.Match[str]) -> int | None:
    r"""Return the start of `\boxed`, `fboxed`, `\fbox` or `\framebox`; None for another word.

    `\b` may have become a backspace where a text passed through a careless reader of JSON.
    """
    start = match.start()
    before = text[max(0, start - 6) : start]
    braced = match.group().endswith("{")
    if match.group().startswith("boxed"):
        if before.endswith("\\f") and braced:
            return start - 2
        if before.endswith("\\"):
            return start - 1
        if braced:
            return start - before.endswith("f")
        return None
    for name in ("\\f", "\\frame"):
        if before.endswith(name) and braced:
            return start - len(name)
    return None


def _closing_brace(text: str, opening: int) -> int | None:
    depth = 0
    for match in _BRACE.finditer(text, opening):
        depth += (match.group() == "{") - (match.group() == "}")
        if depth == 0 and match.group() == "}":
            return match.start()
    return None


def _closing_braces(text: str) -> dict[int, int]:
    """Map the index of every closed opening brace to its closing brace, ignoring escaped ones."""
    closing: dict[int, int] = {}
    waiting: list[int] = []
    for match in _BRACE.finditer(text):
        if match.group() == "{":
            waiting.append(match.start())
        elif match.group() == "}" and waiting:
            closing[waiting.pop()] = match.start()
    return closing


def _is_denied(text: str, box: Box) -> bool:
    return (
        _NEGATED.search(text, max(0, box.start - 24), box.start) is not None
        or _TAKEN_BACK.match(text, box.end, box.end + 40) is not None
    )


def _with_unit(text: str, box: Box) -> str:
    unit = units_after.find(text, box.end)
    return f"{box.content}{unit}" if unit else box.content


def _joint(text: str, start: int, end: int) -> str | None:
    r"""Read the text between two boxes.

    Args:
        text: the response.
        start: the end of the first box.
        end: the start of the second.

    Returns:
        "label" if part labels connect the boxes, "or" if that word does, "and" if it or separators
        do or nothing is between them, and None if the boxes are separate answers.
    """
    if end - start > LONGEST_CONNECTION:
        return None
    position = start
    unit = units_after.find(text, start)
    kinds: list[str] = []
    num_words = 0
    while position < end:
        match = _CONNECTION.match(text, position, end)
        if match is None:
            if unit and not kinds:
                position += 1
                continue
            return None
        position = match.end()
        kind = str(match.lastgroup)
        if kind == "word":
            word = match.group().lower()
            if word in RETRACTIONS:
                return None
            if word in _ANDS or word in _ORS:
                kind = "and" if word in _ANDS else "or"
            elif word not in HEDGES:
                num_words += 1
        if kind != "space":
            kinds.append(kind)
    if not kinds:
        # `\boxed{4}\boxed{5}` gives both; in the next paragraph, a box replaces the one before
        return None if _PARAGRAPH.search(text, start, end) else "and"
    return _kind_of_joint(kinds, num_words)


def _kind_of_joint(kinds: list[str], num_words: int) -> str | None:
    labelled = "label" in kinds
    is_joined = "and" in kinds or "or" in kinds
    # a sentence may stand between parts with labels, a unit before "and"
    if num_words > (8 if labelled else 0) and not _is_unit_and_join(kinds, num_words):
        return None
    if "end" in kinds and not (labelled or is_joined):
        return None
    if labelled:
        return "label"
    if "or" in kinds:
        return "or"
    return "and" if is_joined or "separator" in kinds else None


def _is_unit_and_join(kinds: list[str], num_words: int) -> bool:
    return (
        num_words <= 2
        and kinds[:num_words] == ["word"] * num_words
        and kinds[num_words : num_words + 1] in (["and"], ["or"])
    )
