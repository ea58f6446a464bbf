r"""Values of expressions without names: exact for rational numbers, else in floating point.

They order the ends of intervals, check that the members of a chain agree and compute entries of
matrices; no answer is right because of a floating-point value alone.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import lru_cache

MAX_LENGTH = 200
MAX_DEPTH = 12
MAX_EXACT_EXPONENT = 64

Real = Fraction | float
"""Exact if it is a fraction."""

_TOKEN = re.compile(
    r"\s*(?:([0-9]+(?:,[0-9]{3}(?![0-9]))*(?:\.[0-9]*)?|\.[0-9]+)|\\([a-zA-Z]+)|(\\?%)"
    r"|([a-zA-Z]+)|(\^\s*\\circ(?![a-zA-Z])|\*\*|[-+*/^_!(){}\[\]|]))"
)
DEGREES = "°"
"""The token of `^\\circ`."""
_FUNCTIONS: dict[str, Callable[[float], float]] = {
    "sin": math.sin,
    "cos": math.cos,
    "tan": math.tan,
    "arcsin": math.asin,
    "arccos": math.acos,
    "arctan": math.atan,
    "ln": math.log,
    "log": math.log,
    "lg": math.log10,
    "exp": math.exp,
}
_INFINITIES = frozenset(["infty", "inf", "infinity", "oo"])


class _UnreadableError(Exception):
    """The expression has something that is not evaluated."""


@lru_cache(maxsize=8_192)
def value(text: str) -> Real | None:
    """Evaluate a normalised expression; None if it has names, units or is not finite.

    Infinity and minus infinity themselves are values.
    """
    if not text or len(text) > MAX_LENGTH:
        return None
    try:
        tokens = _tokens(text)
        if any(token.lstrip("\\") in _INFINITIES for token in tokens):
            sign = tokens[0] if len(tokens) == 2 else "+"
            if len(tokens) > 2 or sign not in "+-" or tokens[-1].lstrip("\\") not in _INFINITIES:
                return None
            return -math.inf if sign == "-" else math.inf
        parser = _Parser(tokens)
        result = parser.sum()
        if parser.position != len(tokens) or isinstance(result, complex):
            return None
    except (_UnreadableError, ArithmeticError, ValueError, TypeError, RecursionError):
        return None
    return result if isinstance(result, Fraction) or math.isfinite(result) else None


def _tokens(text: str) -> list[str]:
    tokens: list[str] = []
    position = 0
    text = text.rstrip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise _UnreadableError
        number, command, percent, letters, sign = match.groups()
        if number:
            tokens.append(number.replace(",", ""))
        elif command:
            tokens.append("\\" + command)
        else:
            tokens.append("%" if percent else letters or (DEGREES if "circ" in sign else sign))
        position = match.end()
    return tokens


def _magnitude(number: Real) -> Real:
    return -number if number < 0 else number


def _raised(base: Real, exponent: Real) -> Real:
    if isinstance(exponent, Fraction) and exponent.denominator == 1:
        exact = isinstance(base, Fraction) and base.numerator.bit_length() < MAX_EXACT_EXPONENT
        if exact and abs(exponent) <= MAX_EXACT_EXPONENT:
            return Fraction(base) ** int(exponent)
    if base < 0 and exponent != int(exponent):
        raise _UnreadableError
    return math.pow(base, exponent)


class _Parser:
    """A descent over the tokens of one expression."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self._tokens = tokens
        self._depth = 0
        self.position = 0

    def sum(self) -> Real:
        """Read terms with signs between them."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise _UnreadableError
        total: Real = self._product()
        while self._next() in ("+", "-"):
            sign = self._take()
            term = self._product()
            total = total + term if sign == "+" else total - term
        self._depth -= 1
        return total

    def _product(self) -> Real:
        if self._next() in ("+", "-"):
            return -self._product() if self._take() == "-" else self._product()
        result = self._power()
        while (token := self._next()) is not None:
            if token in ("*", r"\cdot", r"\times"):
                self._take()
                result *= self._signed_power()
            elif token == "/":
                self._take()
                result /= self._signed_power()
            elif token in ("+", "-", ")", "}", "]", "|"):
                break
            # a number after a number is no product (`3 4`), but a fraction makes it mixed (`3 1/2`)
            elif token[0] in "0123456789.":
                raise _UnreadableError
            elif token == r"\frac" and self._tokens[self.position - 1][0] in "0123456789":
                result += self._power()
            else:
                result *= self._power()
        return result

    def _signed_power(self) -> Real:
        if self._next() in ("+", "-"):
            return -self._signed_power() if self._take() == "-" else self._signed_power()
        return self._power()

    def _power(self) -> Real:
        base = self._atom()
        while (token := self._next()) in ("^", "**", "!", "%"):
            self._take()
            if token == "!":
                if base != int(base) or not 0 <= base <= 60:
                    raise _UnreadableError
                base = Fraction(math.factorial(int(base)))
            elif token == "%":
                base /= 100
            else:
                base = _raised(base, self._exponent())
        return base

    def _exponent(self) -> Real:
        if self._next() in ("+", "-"):
            return -self._atom() if self._take() == "-" else self._atom()
        return self._power()

    def _atom(self) -> Real:
        token = self._take()
        if token[0] in "0123456789.":
            return Fraction(token)
        if token in ("(", "{", "["):
            inside = self.sum()
            self._expect({"(": ")", "{": "}", "[": "]"}[token])
            return inside
        if token == "|":
            inside = _magnitude(self.sum())
            self._expect("|")
            return inside
        name = token.lstrip("\\")
        if name == "frac":
            top = self._group()
            return top / self._group()
        if name == "sqrt":
            return self._root()
        if name == "pi":
            return math.pi
        if name == "e":
            return math.e
        if name in _FUNCTIONS and token.startswith("\\"):
            return self._function(name)
        raise _UnreadableError

    def _function(self, name: str) -> Real:
        base = 1.0
        if self._next() == "_" and name == "log":
            self._take()
            base = math.log(float(self._group() if self._next() == "{" else self._atom()))
        if self._next() in ("^", "_"):
            raise _UnreadableError
        argument = float(self._power())
        if self._next() == DEGREES:
            self._take()
            argument = math.radians(argument)
        return _FUNCTIONS[name](argument) / base

    def _root(self) -> Real:
        degree: Real = 2
        if self._next() == "[":
            self._take()
            degree = self.sum()
            self._expect("]")
        radicand = self._group() if self._next() in ("{", "(") else self._atom()
        if radicand < 0:
            raise _UnreadableError
        root = float(radicand) ** (1 / float(degree))
        # the root of a square is exact
        whole = Fraction(round(root)) if root < 1e6 else None
        return whole if whole is not None and whole**2 == radicand and degree == 2 else root

    def _group(self) -> Real:
        opening = self._take()
        if opening not in ("{", "("):
            raise _UnreadableError
        inside = self.sum()
        self._expect("}" if opening == "{" else ")")
        return inside

    def _next(self) -> str | None:
        return self._tokens[self.position] if self.position < len(self._tokens) else None

    def _take(self) -> str:
        token = self._next()
        if token is None:
            raise _UnreadableError
        self.position += 1
        return token

    def _expect(self, token: str) -> None:
        if self._take() != token:
            raise _UnreadableError
