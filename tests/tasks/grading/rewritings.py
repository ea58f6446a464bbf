r"""Rewritings of gold answers that keep their value, and near misses that change it.

A rewriting takes a gold answer and gives the answer of a response, a pair of another gold answer
and its answer (for kinds that the benchmarks lack, such as moduli), or None where it does not
apply. Answers are put into a box, `Response`s stand as they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import cache
from typing import NamedTuple

from tests.tasks.grading.corpus import Gold
from tests.tasks.grading.oracle import same_value, value

Result = str | tuple[str, str] | None
Rewrite = Callable[[str], Result]


class Response(str):
    """A whole response, which is not put into a box."""


class Rewriting(NamedTuple):
    """A rewriting of golds.

    Attributes:
        name: the name of its function.
        apply: the function.
        at_least: the fewest golds of the benchmarks that it must apply to.
    """

    name: str
    apply: Callable[[Gold], Result]
    at_least: int


KEEPING: list[Rewriting] = []
CHANGING: list[Rewriting] = []


def keeps(at_least: int) -> Callable[[Rewrite], Rewrite]:
    """Register a rewriting that keeps the value of a gold answer."""
    return _registered(KEEPING, at_least)


def changes(at_least: int) -> Callable[[Rewrite], Rewrite]:
    """Register a rewriting that changes the value of a gold answer."""
    return _registered(CHANGING, at_least)


def _registered(rewritings: list[Rewriting], at_least: int) -> Callable[[Rewrite], Rewrite]:
    def register(rewrite: Rewrite) -> Rewrite:
        rewritings.append(Rewriting(rewrite.__name__, lambda gold: rewrite(gold.answer), at_least))
        return rewrite

    return register


def pair(gold: Gold, result: str | tuple[str, str]) -> tuple[str, str]:
    """The gold answer and the response that a rewriting makes."""
    answer, text = (gold.answer, result) if isinstance(result, str) else result
    return answer, text if isinstance(text, Response) else rf"So we are done: $\boxed{{{text}}}$."


# --- Parts of golds ---

INTEGER = re.compile(r"-?\d+")
DECIMAL = re.compile(r"(-?)(\d*)\.(\d+)")
GROUPED = re.compile(r"-?\d{1,3}(?:,(?:\\!)?\s?\d{3})+")
FRACTION = re.compile(r"(-?)\s*\\([dt]?)frac\s*(?:\{\s*(\d+)\s*\}|(\d))\s*(?:\{\s*(\d+)\s*\}|(\d))")
MIXED = re.compile(r"(-?\d+)\s*\\[dt]?frac\s*(?:\{\s*(\d+)\s*\}|(\d))\s*(?:\{\s*(\d+)\s*\}|(\d))")
UNIT = re.compile(
    r"(?P<value>.*[\d}])(?:\\[,;])?\s*\\(?:text|mbox|textrm|mathrm)\s*"
    r"\{\s*(?P<unit>[a-zA-Z][a-zA-Z. ]*)\}(?P<power>\s*\^\s*\{?\d\}?)?"
)
DEGREES = re.compile(r"(.*\d)\s*\^\s*(?:\{\\circ\}|\\circ)")
BASE = re.compile(r"(-?\d+)_\{?(\d+)\}?")
PERCENT = re.compile(r"(-?[\d.]+)\s*\\?%")
DOLLARS = re.compile(r"\\\$\s*((?:\d|,\\!)+(?:\.\d+)?)")
MATRIX = re.compile(r"\\begin\{pmatrix\}(.*)\\end\{pmatrix\}", re.DOTALL)
WORD = re.compile(r"\\text\{([A-Za-z][A-Za-z ]+)\}")
LETTER = re.compile(r"\\text\{\(?([A-Z])\)?\}|\(\\text\{([A-Z])\}\)|\(([A-Z])\)")
RATIO = re.compile(r"(\d+):(\d+)")
EQUATION = re.compile(r"([^=<>]+[^=<>\\\s])\s*=\s*([^=<>]+)")
COMPLEX = re.compile(r"(-?\d+)\s*([-+])\s*(\d*)i")
FIRST_TERM = re.compile(r"(-?(?:\d+|\d*[a-df-z](?:\^\d)?|\d*\\sqrt\{\d+\}))\s*([-+])\s*(.+)")


def is_plain(text: str) -> bool:
    """One value that is no word, list, relation or interval, and has no unit."""
    return value(text) is not None and not re.fullmatch(r"[A-Z]{2,}|[a-z]{3,}", text)


@cache
def number(text: str) -> Fraction | None:
    """The value of a plain number in the benchmarks' spellings."""
    if GROUPED.fullmatch(text):
        return Fraction(re.sub(r"[^\d-]", "", text))
    if INTEGER.fullmatch(text) or DECIMAL.fullmatch(text):
        return Fraction(text)
    match = FRACTION.fullmatch(text)
    if match:
        top, bottom = (int(part) for part in match.group(3, 4, 5, 6) if part)
        return Fraction(top, bottom) * (-1 if match[1] else 1) if bottom else None
    match = MIXED.fullmatch(text)
    if match:
        top, bottom = (int(part) for part in match.groups()[1:] if part)
        whole = int(match[1])
        return whole + Fraction(top, bottom) * (-1 if whole < 0 else 1) if top < bottom else None
    return None


def whole(text: str) -> int | None:
    """The value of an integer, with or without thousands marks."""
    result = number(text) if INTEGER.fullmatch(text) or GROUPED.fullmatch(text) else None
    return None if result is None else int(result)


def decimal(number: Fraction) -> str:
    """A decimal number that ends, without rounding; raises ValueError where it does not end."""
    for digits in range(13):
        scaled = number * 10**digits
        if scaled.denominator == 1:
            text = f"{abs(scaled.numerator):0{digits + 1}d}"
            point = f".{text[-digits:]}" if digits else ""
            return ("-" if number < 0 else "") + (text[:-digits] if digits else text) + point
    raise ValueError(number)


def split(text: str) -> list[str]:
    """Members between commas and semicolons that stand outside of brackets."""
    parts, depth, start = [], 0, 0
    for token in re.finditer(r"\\begin|\\end|\\[,;]|\\.|.", text, re.DOTALL):
        mark = token.group()
        depth += mark in ("(", "[", "{", "\\begin", "\\{")
        depth -= mark in (")", "]", "}", "\\end", "\\}")
        if mark in ",;" and depth == 0:
            parts.append(text[start : token.start()])
            start = token.end()
    return [re.sub(r"^(?:\\[;,! ]|\s)+|\s+$", "", part) for part in (*parts, text[start:])]


@cache
def bracketed(text: str) -> tuple[str, list[str], str] | None:
    r"""Opening bracket, members and closing bracket of `(a, b)` or `\left[ a, b \right)`."""
    bare = re.sub(r"\\left|\\right", "", text).strip()
    if "\\cup" in bare or not bare or bare[0] not in "([" or bare[-1] not in ")]":
        return None
    parts = split(bare[1:-1].strip())
    return (bare[0], parts, bare[-1]) if len(parts) > 1 and all(map(is_end, parts)) else None


def is_end(text: str) -> bool:
    return is_plain(text) or is_infinite(text)


def is_infinite(text: str) -> bool:
    return re.fullmatch(r"[-+]?\s*\\infty", text) is not None


def point(text: str) -> list[str] | None:
    """Coordinates of a tuple, which has finite members and may be an open interval."""
    parts = bracketed(text)
    if parts is None or parts[0] + parts[2] != "()" or any(map(is_infinite, parts[1])):
        return None
    return parts[1]


def interval(text: str) -> tuple[str, str, str, str] | None:
    """Brackets and ends of what can only be an interval: one end is closed, or infinite."""
    parts = bracketed(text)
    if parts is None or len(parts[1]) != 2:
        return None
    opening, (low, high), closing = parts
    sure = opening + closing != "()" or is_infinite(low) or is_infinite(high)
    return (opening, low, high, closing) if sure else None


def union(text: str) -> list[str] | None:
    """Members of a union of intervals."""
    parts = [part.strip() for part in text.split("\\cup")]
    return parts if len(parts) > 1 and all(map(bracketed, parts)) else None


@cache
def listed(text: str) -> list[str] | None:
    """Members of a list without brackets, of which no two are equal."""
    if GROUPED.fullmatch(text) or "=" in text:
        return None
    parts = split(text)
    return parts if len(parts) > 1 and all(map(is_plain, parts)) and all_differ(parts) else None


def all_differ(texts: Sequence[str]) -> bool:
    values = [value(text) for text in texts]
    return not any(
        one is None or other is None or same_value(one, other)
        for index, one in enumerate(values)
        for other in values[:index]
    )


@cache
def entries(text: str) -> list[list[str]] | None:
    """Rows of a matrix whose entries are plain."""
    match = MATRIX.fullmatch(text.rstrip(". "))
    if match is None or "\\begin" in match[1]:
        return None
    rows = [[cell.strip() for cell in row.split("&")] for row in match[1].split("\\\\")]
    rows = [row for row in rows if row != [""]]
    even = len({len(row) for row in rows}) == 1
    return rows if even and all(is_plain(cell) for row in rows for cell in row) else None


def integer_entries(text: str) -> list[list[int]] | None:
    rows = entries(text)
    if rows is None or not all(INTEGER.fullmatch(cell) for row in rows for cell in row):
        return None
    return [[int(cell) for cell in row] for row in rows]


def matrix(rows: Sequence[Sequence[object]], kind: str = "pmatrix") -> str:
    inside = r" \\ ".join(" & ".join(map(str, row)) for row in rows)
    return rf"\begin{{{kind}}} {inside} \end{{{kind}}}"


def bumped(text: str) -> str | None:
    """The same with its last digit raised by one."""
    match = re.search(r"\d(?!.*\d)", text)
    return match and f"{text[: match.start()]}{(int(match[0]) + 1) % 10}{text[match.end() :]}"


def measured(text: str) -> tuple[str, str] | None:
    """A value that is not zero, and its unit with its power."""
    match = UNIT.fullmatch(text)
    if match is None or match["unit"].strip() in ("and", "or", "in base"):
        return None
    if not value(match["value"]):
        return None
    return match["value"].strip(), match["unit"].strip(" .") + re.sub(
        r"[\s{}]", "", match["power"] or ""
    )


def differs(gold: str, answer: str) -> str | None:
    """The answer, unless the second evaluation finds that its value is the gold's."""
    one, other = value(gold), value(answer)
    return None if one is not None and other is not None and same_value(one, other) else answer
