r"""Separators, relations and brackets of a normalised expression outside of all inner brackets."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal, NamedTuple

Kind = Literal[
    "comma", "and", "or", "row", "approx", "equals", "relation", "in", "cup", "cap", "minus", "mid"
]
LISTS: frozenset[Kind] = frozenset(["comma", "and", "or", "row"])
MAX_DEPTH = 12
"""Brackets nested more deeply than this are not taken apart."""

_TOKEN = re.compile(
    r"\\text\{([^{}]*)\}|\\[a-zA-Z]+|\\.|\b(?:and|or|U)\b|[()\[\]{},;=<>|:]", re.DOTALL
)
_OPENING = frozenset(
    ["(", "[", "{", r"\{", r"\begin", r"\langle", r"\lfloor", r"\lceil", r"\lbrace"]
)
_CLOSING = frozenset([")", "]", "}", r"\}", r"\end", r"\rangle", r"\rfloor", r"\rceil", r"\rbrace"])
_KINDS: dict[str, Kind] = {
    ",": "comma",
    ";": "comma",
    "and": "and",
    "or": "or",
    r"\land": "and",
    r"\lor": "or",
    r"\&": "and",
    r"\\": "row",
    r"\approx": "approx",
    "=": "equals",
    r"\equiv": "equals",
    "<": "relation",
    ">": "relation",
    r"\le": "relation",
    r"\ge": "relation",
    r"\ne": "relation",
    r"\in": "in",
    r"\cup": "cup",
    "U": "cup",
    r"\cap": "cap",
    r"\setminus": "minus",
    r"\mid": "mid",
    "|": "mid",
    ":": "mid",
}
_WORDS: dict[str, Kind] = {
    "and": "and",
    "or": "or",
    "und": "and",
    "oder": "or",
    "et": "and",
    "ou": "or",
    "和": "and",
    "或": "or",
    "&": "and",
}
_PAIRS = {
    "(": ")",
    "[": "]",
    "{": "}",
    r"\{": r"\}",
    r"\langle": r"\rangle",
}
_THOUSANDS = re.compile(r"\d,\d{3}(?!\d)")
_FRENCH = re.compile(r"([\[\]])([^\[\]]+,[^\[\]]+)([\[\]])")


class Separator(NamedTuple):
    """A sign at the top level of a text, with its position."""

    kind: Kind
    token: str
    start: int
    end: int


@lru_cache(maxsize=4_096)
def separators(text: str, *, listed: bool = False) -> tuple[Separator, ...]:
    """The separators of a text outside of all brackets and environments, in order.

    A comma between the thousands of a number is none. The result is empty for a text that is
    nested too deeply.

    Args:
        text: the expression.
        listed: it stands in brackets, so that `3,400` is two members.
    """
    found: list[Separator] = []
    depth = 0
    for match in _TOKEN.finditer(text):
        token = match.group()
        if token in _OPENING:
            depth += 1
            if depth > MAX_DEPTH:
                return ()
        elif token in _CLOSING:
            depth -= 1
        elif depth == 0:
            word = match[1]
            kind = _KINDS.get(token) if word is None else _WORDS.get(word.strip(" ,.;").lower())
            if token == "U" and not text[match.end() :].lstrip().startswith(("(", "[")):
                kind = None
            if kind is not None:
                found.append(Separator(kind, token, match.start(), match.end()))
    return tuple(_without_thousands(text, found, listed=listed))


def _without_thousands(text: str, found: list[Separator], *, listed: bool) -> list[Separator]:
    commas = [separator for separator in found if separator.token == ","]
    tight = [comma for comma in commas if text[comma.end : comma.end + 1].strip()]
    lists = sum(separator.kind in LISTS for separator in found)
    if not tight or (listed and len(tight) == lists):
        return found
    if all(comma.start and _THOUSANDS.match(text, comma.start - 1) for comma in tight):
        return [separator for separator in found if separator not in tight]
    return found


def split(
    text: str, kinds: frozenset[Kind], *, listed: bool = False
) -> tuple[list[str], list[Separator]]:
    """Split at the separators of these kinds; return the stripped parts and the separators."""
    parts: list[str] = []
    between: list[Separator] = []
    start = 0
    for separator in separators(text, listed=listed):
        if separator.kind in kinds:
            parts.append(text[start : separator.start].strip())
            between.append(separator)
            start = separator.end
    parts.append(text[start:].strip())
    return parts, between


def brackets(text: str) -> tuple[str, str, str] | None:
    """Return (opening, inside, closing) if one pair of brackets surrounds the whole text."""
    if not text or text[0] not in "([{\\":
        return None
    opening = next((sign for sign in _PAIRS if text.startswith(sign)), None)
    if opening is None or not text.endswith((")", "]", "}", r"\rangle")):
        return None
    depth = 0
    for match in _TOKEN.finditer(text):
        token = match.group()
        if token in _OPENING:
            depth += 1
            if depth > MAX_DEPTH:
                return None
        elif token in _CLOSING:
            depth -= 1
            if depth == 0:
                if match.end() != len(text):
                    return None
                inside = text[len(opening) : match.start()].strip()
                return opening, inside, token
    return None


def with_round_ends(text: str) -> str:
    """Write the French interval `]1, 2[` as `(1, 2)`."""
    if not (text.startswith("]") or text.endswith("[")):
        return text
    return _FRENCH.sub(
        lambda match: (
            ("(" if match[1] == "]" else "[") + match[2] + (")" if match[3] == "[" else "]")
        ),
        text,
    )
