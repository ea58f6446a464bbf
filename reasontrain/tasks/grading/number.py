"""Exact reading of integers, decimals, fractions, mixed numbers, percentages and powers of ten."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

MAX_DIGITS = 1000
MAX_EXPONENT = 1000
ROUNDING = Fraction(1, 1_000_000)
"""Tolerance of decimals, absolute and relative to the gold answer; the smaller one counts."""

_UNSIGNED = r"(?:\d{1,3}(?:,\d{3}|\ \d{3})+(?!\d)(?:\.\d*)?|\d+(?:\.\d*)?|\.\d+)"
_DECIMAL = re.compile(rf"([-+]?)\s*({_UNSIGNED})(?:[eE]([-+]?\d{{1,5}}))?")
_FRACTION = re.compile(
    rf"([-+]?)\s*\\frac\{{\s*([-+]?\s*{_UNSIGNED})\s*\}}\{{\s*([-+]?\s*{_UNSIGNED})\s*\}}"
)
_SLASH = re.compile(rf"([-+]?)\s*\(?({_UNSIGNED})\)?\s*/\s*\(?([-+]?{_UNSIGNED})\)?")
_MIXED = re.compile(
    r"([-+]?)\s*(\d{1,3}(?:[ ,]\d{3})+|\d+)\s*(?:\s(\d+)\s*/\s*(\d+)|\\frac\{(\d+)\}\{(\d+)\})"
)
_SCIENTIFIC = re.compile(
    rf"([-+]?)\s*(?:({_UNSIGNED})\s*(?:\\times|\\cdot|\*|x)\s*)?10\s*(?:\^|\*\*)\s*"
    r"(?:\{\s*([-+]?\d{1,5})\s*\}|\(([-+]?\d{1,5})\)|(\d{1,5}))"
)


@dataclass(frozen=True)
class Number:
    """A rational number, with flags for a decimal point and a percent sign in its text."""

    value: Fraction
    decimal: bool = False
    percent: bool = False


def equal(gold: Number, answer: Number) -> bool:
    """Return True if two numbers agree.

    A percentage agrees with its value as a fraction, and with the number before its sign.
    """
    if _close(_share(gold), _share(answer), rounded=gold.decimal or answer.decimal):
        return True
    return gold.percent != answer.percent and _close(
        gold.value, answer.value, rounded=gold.decimal or answer.decimal
    )


def read(text: str) -> Number | None:
    """Read a normalised text as a number; None if it is anything else, or too long."""
    text = text.strip()
    if not text or sum(char.isdigit() for char in text) > MAX_DIGITS or len(text) > 2 * MAX_DIGITS:
        return None
    if text.startswith("(") and text.endswith(")"):
        return read(text[1:-1])
    percent = text.endswith("%")
    text = text.rstrip("% ") if percent else text
    number = _plain(text) or _fraction(text) or _mixed(text) or _scientific(text)
    return number and Number(number.value, number.decimal, percent)


def _share(number: Number) -> Fraction:
    return number.value / 100 if number.percent else number.value


def _close(gold: Fraction, answer: Fraction, *, rounded: bool) -> bool:
    return gold == answer or (
        rounded and abs(gold - answer) < ROUNDING * min(Fraction(1), abs(gold))
    )


def _plain(text: str) -> Number | None:
    match = _DECIMAL.fullmatch(text)
    if not match:
        return None
    sign, digits, exponent = match.groups()
    if exponent and abs(int(exponent)) > MAX_EXPONENT:
        return None
    return Number(
        _signed(sign, _rational(digits) * Fraction(10) ** int(exponent or 0)), "." in digits
    )


def _fraction(text: str) -> Number | None:
    match = _FRACTION.fullmatch(text) or _SLASH.fullmatch(text)
    if not match:
        return None
    sign, top, bottom = match.groups()
    if _rational(bottom) == 0:
        return None
    return Number(_signed(sign, _rational(top) / _rational(bottom)), "." in top + bottom)


def _mixed(text: str) -> Number | None:
    """Read `4 4/9` and `1\\frac{4}{5}`, whose fraction must be smaller than one."""
    match = _MIXED.fullmatch(text)
    if not match:
        return None
    sign, whole = match.group(1, 2)
    top, bottom = (int(part) for part in match.groups()[2:] if part is not None)
    if top >= bottom:
        return None
    return Number(_signed(sign, _rational(whole) + Fraction(top, bottom)))


def _scientific(text: str) -> Number | None:
    match = _SCIENTIFIC.fullmatch(text)
    if not match:
        return None
    sign, digits, *exponents = match.groups()
    exponent = int(next(part for part in exponents if part is not None))
    if abs(exponent) > MAX_EXPONENT:
        return None
    return Number(
        _signed(sign, _rational(digits or "1") * Fraction(10) ** exponent),
        "." in (digits or "") or exponent < 0,
    )


def _rational(digits: str) -> Fraction:
    return Fraction(re.sub(r"[,\s]", "", digits))


def _signed(sign: str, value: Fraction) -> Fraction:
    return -value if sign == "-" else value
