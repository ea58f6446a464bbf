r"""The unit or magnitude behind a box or formula: `\%`, `^\circ`, `\text{ cm}`, `million`."""

from __future__ import annotations

import re

from reasontrain.tasks.grading import units
from reasontrain.tasks.grading.languages import ANDS, ORS

_CLOSING = re.compile(r"\s*(?:\$\$?|\\\)|\\\]|\*\*)?\s*")
_PERCENT = re.compile(r"\\?[%％]|(?:percent|per cent|pct)\b", re.IGNORECASE)
_DEGREE = re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ)|\\degree(?![a-zA-Z])|°\s?[CF]?\b|°")
_TEXT = re.compile(
    r"(?:\\[,;:!> ]|~)*\\(?:text|mbox|textnormal|textrm|mathrm|rm)\s*\{"
    r"(?!\s*(?:and|or|is|are|if|for|when|where|so|not|but|which|with|that|because)\b)\s*"
    r"[a-zA-Z/.² ³]{1,30}\}(?:\s*\^\s*(?:\{-?\d\}|-?\d))?"
)
_MAGNITUDE = re.compile(
    r"(?:hundred|thousand|million|billion|trillion|lakh|crore)s?\b|[万亿萬億兆]|천|만|억",
    re.IGNORECASE,
)
_UNIT = re.compile(
    r"(?:(?:square|cubic|sq\.?|cu\.?)\s+)?([^\W\d_]{1,14})(?:[²³]|\^[23]| (?:squared|cubed)\b)?"
    r"(?:(?: per |/)([^\W\d_]{1,14})(?:[²³]|\^[23])?)?(?![\w'’-])"
)
_WORDS = frozenset(
    [*("in", "second", "bit", "A", "C", "F", "J", "K", "N", "V", "W", "min", "am"), *ANDS, *ORS]
)
"""Units that are more often another word, or a name, in a sentence."""


def find(text: str, position: int) -> str:
    r"""Return the unit, percent sign or magnitude after a value, as LaTeX; "" if there is none.

    Args:
        text: the text.
        position: the end of the value; the end of its formula may come between.
    """
    closing = _CLOSING.match(text, position)
    start = closing.end() if closing else position
    if _PERCENT.match(text, start):
        return r"\%"
    degree = _DEGREE.match(text, position)
    if degree:
        return degree.group()
    unit = _TEXT.match(text, start)
    if unit:
        return unit.group()
    magnitude = _MAGNITUDE.match(text, start)
    following = _in_words(text, magnitude.end() + 1 if magnitude else start)
    return (f" {magnitude.group()}" if magnitude else "") + (f" {following}" if following else "")


def _in_words(text: str, position: int) -> str:
    """Return a unit of the table in plain words; "" for other words."""
    match = _UNIT.match(text, position)
    if match is None or match[1] in _WORDS or units.find(match[1]) is None:
        return ""
    if match[2] is not None and units.find(match[2]) is None:
        return text[position : match.start(2)].removesuffix(" per ").removesuffix("/")
    return match.group()
