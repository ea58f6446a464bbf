"""A calculator that the policy calls inside its response: `<<37*46>>` is followed by `=1702`.

GSM8K (Cobbe et al. 2021, arXiv 2110.14168) introduced calls between `<<` and `>>`. There the text
holds the result as well, `<<48/2=24>>24`; here the calculator writes it, so that the policy has
nothing to copy.
"""

from __future__ import annotations

import ast
import operator
import random
import re
from collections.abc import Callable, Mapping
from fractions import Fraction

from reasontrain.environments.protocol import Step

OPEN = "<<"
CLOSE = ">>"
MAX_LENGTH = 200
"""Characters of an expression."""
MAX_DIGITS = 30
"""Digits of a result's numerator and denominator."""
DECIMALS = 6
ERROR = "=error"

_ALLOWED = re.compile(r"[\d\s.+\-*/()]+")
_NUMBER = re.compile(r"\d+")
_BINARY: Mapping[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


class Calculator:
    """The environment of one response."""

    def __init__(self, *, shuffled: bool = False) -> None:
        self.shuffled = shuffled

    def reset(self, problem: Mapping[str, object]) -> None:
        """Begin a response; the calculator has nothing to say."""

    def step(self, text: str) -> Step:
        """Answer the call that a turn ends with; a turn without one is the last."""
        if not text.endswith(CLOSE):
            return None, None, True
        _, opening, expression = text.removesuffix(CLOSE).rpartition(OPEN)
        if not opening:
            return ERROR, None, False
        return answer(other_numbers(expression) if self.shuffled else expression), None, False


def answer(expression: str) -> str:
    """The observation after a call: `=` with the value, or `=error`."""
    value = evaluate(expression)
    return ERROR if value is None else f"={written(value)}"


def evaluate(expression: str) -> Fraction | None:
    """The exact value of an expression of numbers; None if it is not one, or has no value."""
    if len(expression) > MAX_LENGTH or not _ALLOWED.fullmatch(expression):
        return None
    try:
        tree = ast.parse(expression.strip(), mode="eval")
        return _value(tree.body)
    # what `ast` cannot read, what is no calculation, and nesting beyond Python's limit
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
        return None


def _value(node: ast.expr) -> Fraction:
    match node:
        case ast.Constant(value=int() | float()):
            # the text of a decimal number is exact, its float is not
            value = Fraction(ast.unparse(node))
        case ast.BinOp() if type(node.op) in _BINARY:
            value = _BINARY[type(node.op)](_value(node.left), _value(node.right))
        case ast.UnaryOp(op=ast.USub()):
            value = -_value(node.operand)
        case ast.UnaryOp(op=ast.UAdd()):
            value = _value(node.operand)
        case _:
            raise ValueError("not a calculation")
    if max(abs(value.numerator), value.denominator) >= 10**MAX_DIGITS:
        raise ValueError("a number beyond the display")
    return value


def written(value: Fraction) -> str:
    """A value as text: a whole number, or at most six decimals without zeros at the end."""
    if value.denominator == 1:
        return str(value.numerator)
    scaled = round(abs(value) * 10**DECIMALS)
    whole, decimals = divmod(scaled, 10**DECIMALS)
    sign = "-" if value < 0 and scaled else ""
    return f"{sign}{whole}.{decimals:0{DECIMALS}}".rstrip("0").rstrip(".")


def other_numbers(expression: str) -> str:
    """The expression with other numbers of as many digits, the same at every call."""
    rng = random.Random(expression)

    def other(number: re.Match[str]) -> str:
        length = len(number[0])
        return (
            str(rng.randrange(10 ** (length - 1), 10**length))
            if length > 1
            else (str(rng.randrange(1, 10)))
        )

    return _NUMBER.sub(other, expression)
