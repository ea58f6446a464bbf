"""A second evaluation of simple LaTeX, in floating point and without the package's code.

It checks that rewritings of golds keep or change their values. Letters stand for fixed numbers, so
that expressions are equal if and (almost surely) only if their values are.
"""

from __future__ import annotations

import cmath
import math
import re
import zlib
from collections.abc import Sequence
from functools import cache

_TOKEN = re.compile(r"\s*(\\[a-zA-Z]+|\d+(?:\.\d*)?|\.\d+|[a-zA-Z]|[-+*/^(){}\[\]!])")
_PLAIN = (
    (r"\\left|\\right|\\!|\\[,;: ]|\\displaystyle(?![a-zA-Z])|~", " "),
    (r"\{,\}", ","),
    (r"(?<=\d)\s*,\s*(?=\d{3}(?!\d))|(?<=\d) +(?=\d{3}(?!\d))", ""),
    (r"(?<=\d)e([-+]?\d+)", r"\\times 10^{\1}"),
    (r"(\d) +(\d+)/(\d+)$", r"\1\\frac{\2}{\3}"),
    (r"\\[dt]frac(?![a-zA-Z])", r"\\frac"),
    (r"\^\s*(?:\{\s*\\circ\s*\}|\\circ)", ""),
)
_CONSTANTS = {"\\pi": math.pi, "e": math.e, "i": 1j}
_GREEK = frozenset(
    ["\\alpha", "\\beta", "\\theta", "\\omega", "\\lambda", "\\tau", "\\zeta", "\\gamma"]
)


@cache
def value(text: str) -> complex | None:
    """The value of an expression; None for anything that this grammar does not cover."""
    for pattern, replacement in _PLAIN:
        text = re.sub(pattern, replacement, text)
    tokens = []
    position = 0
    text = text.strip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            return None
        tokens.append(match[1])
        position = match.end()
    try:
        parser = _Parser(tokens)
        result = parser.sum()
        return None if parser.tokens or cmath.isnan(result) else result
    except (ValueError, IndexError, ZeroDivisionError, OverflowError, RecursionError):
        return None


def same_value(one: complex, other: complex) -> bool:
    """Equality up to rounding of floating point."""
    return cmath.isclose(one, other, rel_tol=1e-12, abs_tol=1e-60)


class _Parser:
    def __init__(self, tokens: Sequence[str]) -> None:
        self.tokens = list(reversed(tokens))

    def peek(self) -> str:
        return self.tokens[-1] if self.tokens else ""

    def sum(self) -> complex:
        sign = 1
        while self.peek() in ("+", "-") and self.tokens:
            sign = -sign if self.tokens.pop() == "-" else sign
        total = sign * self.product()
        while self.peek() in ("+", "-") and self.tokens:
            total = total + (1 if self.tokens.pop() == "+" else -1) * self.product()
        return total

    def product(self) -> complex:
        result = self.power()
        while self.tokens:
            token = self.peek()
            if token in ("*", "\\cdot", "\\times"):
                self.tokens.pop()
                result *= self.signed_power()
            elif token == "/":
                self.tokens.pop()
                result /= self.signed_power()
            elif token in ("+", "-", ")", "}", "]", "^", "!"):
                break
            else:
                result *= self.power()
        return result

    def signed_power(self) -> complex:
        sign = 1
        while self.peek() == "-":
            self.tokens.pop()
            sign = -sign
        return sign * self.power()

    def power(self) -> complex:
        base = self.factor()
        while self.peek() == "!":
            self.tokens.pop()
            if base != int(base.real) or base.real > 100:
                raise ValueError
            base = complex(math.factorial(int(base.real)))
        if self.peek() == "^":
            self.tokens.pop()
            exponent = self.argument()
            if abs(exponent) > 400:
                raise ValueError
            base = base**exponent
        return base

    def factor(self) -> complex:
        token = self.peek()
        if token == "(":
            return self.group("(", ")")
        if token == "{":
            return self.group("{", "}")
        self.tokens.pop()
        if token[0].isdigit() or token[0] == ".":
            return self.number(token)
        if token == "\\frac":
            return self.argument() / self.argument()
        if token == "\\sqrt":
            degree = self.group("[", "]") if self.peek() == "[" else complex(2)
            radicand = self.argument()
            if radicand.imag == 0 and radicand.real < 0 and degree.real % 2 == 1:
                return complex(-((-radicand.real) ** (1 / degree.real)))
            return radicand ** (1 / degree)
        if token in _CONSTANTS:
            return complex(_CONSTANTS[token])
        if token in _GREEK or re.fullmatch("[a-zA-Z]", token):
            return complex(1.1 + zlib.crc32(token.encode()) % 99_991 / 40_000)
        raise ValueError

    def number(self, token: str) -> complex:
        """A number, or a mixed one: a fraction of two integers after an integer is added."""
        rest = "".join(reversed(self.tokens[-8:]))
        match = re.match(r"\\frac(?:\{(\d+)\}|(\d))(?:\{(\d+)\}|(\d))", rest)
        if token.isdigit() and match and int(match[1] or match[2]) < int(match[3] or match[4]):
            self.tokens.pop()
            return int(token) + self.argument() / self.argument()
        return complex(float(token))

    def argument(self) -> complex:
        """An argument of a command: a group, or one character."""
        if self.peek() == "{":
            return self.group("{", "}")
        token = self.tokens.pop()
        if token.isdigit() and len(token) > 1:
            self.tokens.append(token[1:])
            token = token[0]
        self.tokens.append(token)
        return self.factor()

    def group(self, opening: str, closing: str) -> complex:
        if self.tokens.pop() != opening:
            raise ValueError
        result = self.sum()
        if self.tokens.pop() != closing:
            raise ValueError
        return result
