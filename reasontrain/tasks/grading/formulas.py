r"""Formulas in a text: `$...$`, `$$...$$`, `\(...\)` and `\[...\]`."""

from __future__ import annotations

import re
from typing import NamedTuple

_DELIMITER = re.compile(r"\\\\|\\\$|\$\$|\$|\\[()\[\]]")
_CLOSING = {"$": "$", "$$": "$$", r"\(": r"\)", r"\[": r"\]"}
_WORD = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z]{3,}")
_TEXT = re.compile(r"\\(?:text|mbox|textnormal|textbf|mathrm|operatorname|begin|end)\s*\{[^{}]*\}")
_MATH_WORDS = frozenset(
    [
        *("sqrt", "sin", "cos", "tan", "cot", "sec", "csc", "log", "exp", "arcsin", "arccos"),
        *("arctan", "and", "mod", "inf"),
    ]
)


class Formula(NamedTuple):
    """A formula in a text: the span with its delimiters, and its content."""

    start: int
    end: int
    content: str


def find(text: str) -> list[Formula]:
    """Find the formulas of a text, in order.

    Two dollar amounts in a sentence (`$5 and later $6`) are no formula: it would contain prose, end
    in a space, or be followed by a digit.
    """
    if "$" not in text and "\\" not in text:
        return []
    formulas = []
    tokens = [
        (match.start(), match.end(), match.group())
        for match in _DELIMITER.finditer(text)
        if match.group() not in (r"\\", r"\$")
    ]
    last = {token: index for index, (_, _, token) in enumerate(tokens)}
    index = 0
    while index < len(tokens):
        start, content_start, opening = tokens[index]
        index += 1
        closing = _CLOSING.get(opening)
        if closing is None or last.get(closing, -1) < index:
            continue
        end_index = index
        if opening not in ("$", "$$"):
            while tokens[end_index][2] != closing:
                end_index += 1
        elif tokens[end_index][2] != closing:
            continue
        content_end, end, _ = tokens[end_index]
        content = text[content_start:content_end]
        if opening == "$" and not _is_inline(content, text[end : end + 1]):
            continue
        formulas.append(Formula(start, end, content.strip()))
        index = end_index + 1
    return formulas


def words(text: str) -> list[str]:
    r"""Return the words of at least three letters outside of `\text` and of functions' names."""
    return [word for word in _WORD.findall(_TEXT.sub(" ", text)) if word.lower() not in _MATH_WORDS]


def without_text(text: str) -> str:
    r"""Replace `\text{...}` and the names of environments by spaces."""
    return _TEXT.sub(" ", text)


def without_delimiters(text: str) -> str:
    """Replace every formula by its content."""
    parts = []
    position = 0
    for formula in find(text):
        parts += [text[position : formula.start], formula.content]
        position = formula.end
    return "".join([*parts, text[position:]])


def _is_inline(content: str, following: str) -> bool:
    spaced = content[:1].isspace()
    return (
        bool(content.strip())
        and "\n\n" not in content
        and (spaced or not content[-1].isspace())
        and not following.isdigit()
        and len(words(content)) <= 1
    )
