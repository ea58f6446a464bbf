"""Limits on the expressions passed to algebra, checked on their text before parsing.

SymPy evaluates while it parses: `9^{9^9}` or `10000000!` can fill memory before a time limit acts.
"""

from __future__ import annotations

import re

MAX_EXACT_LENGTH = 4_000
"""The most characters of an extracted answer that is compared at all."""
MAX_LENGTH = 1_000
MAX_DIGITS = 100
MAX_EXPONENT = 10_000
MAX_FACTORIAL = 3_000
MAX_SUM_EXPONENT = 60
MAX_DEPTH = 16

_DIGITS = re.compile(rf"\d{{{MAX_DIGITS + 1},}}")
_FACTORIAL = re.compile(r"(\d+)\s*(?:\}|\))?\s*!|[)}\]!]\s*!")
_FACTORIAL_OF_LETTERS = re.compile(r"\([^()!]*[a-zA-Z][^()!]*\)\s*!(?!\s*!)")
"""A factorial such as `(n-k)!`, whose size the reader checks."""
_BINOMIAL = re.compile(r"\\[dt]?binom\s*\{\s*(\d+)\s*\}|(\d+)\s*\\choose")
_POWER = re.compile(r"(?:\^|\*\*)\s*[{(]*\s*[-+]?\s*(\d+)")
_SUM_POWER = re.compile(r"[)\]]\s*\^\s*\{?\s*(\d+)")
_TOWER = re.compile(
    r"(?:\^|\*\*)\s*[{(]+[^a-zA-Z{}()]*?(?:\^|\*\*|!|\\binom)|(?:\^|\*\*)\s*\d+\s*(?:\^|\*\*)"
)


def too_large(text: str) -> bool:
    """Return True if a text is longer, deeper or denotes larger numbers than algebra can handle."""
    if len(text) > MAX_LENGTH or _DIGITS.search(text) or _depth(text) > MAX_DEPTH:
        return True
    if any(int(power) > MAX_EXPONENT for power in _POWER.findall(text)) or _TOWER.search(text):
        return True
    if any(int(power) > MAX_SUM_EXPONENT for power in _SUM_POWER.findall(text)):
        return True
    if any(int(first or second) > MAX_FACTORIAL for first, second in _BINOMIAL.findall(text)):
        return True
    factorials = _FACTORIAL.findall(_FACTORIAL_OF_LETTERS.sub(" ", text))
    return any(not number or int(number) > MAX_FACTORIAL for number in factorials)


def _depth(text: str) -> int:
    deepest = depth = 0
    for char in text:
        depth += (char in "{([") - (char in "})]")
        deepest = max(deepest, depth)
    return deepest


def balanced(text: str) -> bool:
    """Return True if every brace is closed, ignoring escaped ones."""
    depth = 0
    for match in re.finditer(r"\\.|[{}]", text, re.DOTALL):
        depth += (match.group() == "{") - (match.group() == "}")
        if depth < 0:
            return False
    return depth == 0
