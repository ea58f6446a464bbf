r"""Flat texts: words between marks for `\text{...}`, one sign for degrees and for primes, tokens.

A flat text is what the readers of values take. It is no LaTeX: `as_latex` turns it back.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from reasontrain.tasks.grading import lexicon, units
from reasontrain.tasks.grading import nouns as counted

OPEN = "\x02"
CLOSE = "\x03"
"""Marks around the words of a `\\text`."""
_TEXT = re.compile(
    r"\\(?:text(?:normal|rm|it|bf|sf|up)?|mbox|hbox|mathrm|mathit|mathbf|operatorname\*?|unit|si)"
    r"\s*\{([^{}]*)\}"
)
_FONT = re.compile(r"\\(?:rm|bf|it|sf|mathrm|displaystyle)(?![a-zA-Z])")
_FONT_GROUP = re.compile(r"\{\s*\\(?:rm|bf|it|sf|text)(?![a-zA-Z])([^{}]*)\}")
_SI = re.compile(r"\\(?:SI|qty)\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_SI_PREFIX = re.compile(r"\\(kilo|centi|milli|micro|nano|deci|mega|giga|hecto|square|cubic)\\")
_MICRO = re.compile(r"\\mu\s*(\x02?)\s*(?=[a-zA-Z])")
_DEGREE = re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![a-zA-Z]))|\\degrees?(?![a-zA-Z])|º")
_SECONDS = re.compile(r"(?<=[\d°])\s*(?:\^\s*\{?\s*\\prime\s*\\prime\s*\}?|″|”|'')")
_MINUTES = re.compile(r"(?<=[\d°])\s*(?:\^\s*(?:\{\s*\\prime\s*\}|\\prime(?![a-zA-Z]))|′|’)")
_TOKEN = re.compile(r"\\mu(?![a-zA-Z])|\\[a-zA-Z]+|\\.|[^\W\d_]+(?:'[a-z]+)?|\d+|\S", re.DOTALL)
CJK = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")


class Token(NamedTuple):
    """A word, number or sign of a flat text, and its place."""

    text: str
    start: int
    end: int

    @property
    def is_word(self) -> bool:
        """It begins with a letter of any script."""
        return self.text[0].isalpha()


def flatten(text: str) -> str:
    r"""Replace `\text{...}` and its kin by its content between marks; degrees become `°`."""
    if "\\" in text or "{" in text:
        text = " ".join(text.split())
        text = _DEGREE.sub("°", text)
        text = _SI.sub(lambda match: f"{match[1]} {OPEN}{_without_macros(match[2])}{CLOSE}", text)
        for _ in range(2):
            text = _TEXT.sub(rf"{OPEN}\1{CLOSE}", text)
        text = _FONT.sub(" ", _FONT_GROUP.sub(rf"{OPEN}\1{CLOSE}", text))
        if r"\mu" in text or r"\Omega" in text:
            text = _MICRO.sub(r"\1μ", text).replace(r"\Omega", "Ω")
            text = re.sub(r"(?<=[kM])\s*\x03\s*Ω", f"Ω{CLOSE}", text)
        for command, sign in ((r"\$", "$"), (r"\%", "%"), (r"\euro", "€"), (r"\pounds", "£")):
            text = text.replace(command, sign)
    # runs of spaces would take quadratic time
    return _MINUTES.sub("'", _SECONDS.sub('"', " ".join(text.split())))


def _without_macros(text: str) -> str:
    r"""Write the macros of siunitx as words: `\kilo\meter\per\second` is `kilometer per second`."""
    return re.sub(r"\\([a-z]+)", r" \1", _SI_PREFIX.sub(r" \1", text))


def as_latex(text: str) -> str:
    r"""Put the words of a flat text back into `\text{...}`."""
    for sign, command in (("°", r"^{\circ}"), ("Ω", r"\Omega "), ("μ", r"\mu ")):
        text = text.replace(sign, command)
    text = text.replace(OPEN, r"\text{").replace(CLOSE, "}").strip()
    return text if text.count("{") == text.count("}") else text.replace(r"\text{", " ")


def tokens(text: str) -> Iterator[Token]:
    """Yield the tokens of a flat text, without spaces."""
    for match in _TOKEN.finditer(text):
        if CJK.match(match.group()):
            yield from _segments(match.group(), match.start())
        else:
            yield Token(match.group(), match.start(), match.end())


def _segments(text: str, start: int) -> Iterator[Token]:
    """Cut a text without spaces into the longest known words and the rest between them."""
    unknown = 0
    index = 0
    while index < len(text):
        longest = min(5, len(text) - index)
        size = next((n for n in range(longest, 0, -1) if text[index : index + n] in _KNOWN_CJK), 0)
        # behind a counter, the rest is what is counted
        if not size or (index == unknown > 0 and text[index - 1] in counted.COUNTERS):
            index += max(size, 1)
            continue
        if unknown < index:
            yield Token(text[unknown:index], start + unknown, start + index)
        yield Token(text[index : index + size], start + index, start + index + size)
        index += size
        unknown = index
    if unknown < len(text):
        yield Token(text[unknown:], start + unknown, start + len(text))


_KNOWN_CJK = frozenset(
    word
    for word in (
        *units.SYMBOLS,
        *lexicon.MAGNITUDES,
        *lexicon.BOUNDS,
        *lexicon.BOUNDS_BEHIND,
        *lexicon.DIRECTIONS,
        *lexicon.DIMENSIONS,
        *lexicon.LEADS,
        *counted.COUNTERS,
        *("每", "和", "又", "零", "多", "百分之"),
    )
    if CJK.match(word)
)


def plain(text: str) -> str:
    """Return the text without marks and braces, for people."""
    return re.sub(r"[\s\x02\x03{}]+", " ", text).strip(" .")
