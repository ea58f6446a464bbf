r"""Exact reading of numbers: decimals, fractions, mixed numbers, percentages, powers of ten, words.

Marks of thousands and of decimals are those of any country, where a text can mean only one number:
`1,234.5`, `1 234,5`, `1.234,5` and `1'234`, but not `1,23`, which may be a list.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

from reasontrain.tasks.grading.lexicon import (
    CHINESE_DIGITS,
    CHINESE_PLACES,
    FOREIGN_NUMBERS,
    LARGE_NUMBERS,
    NUMBERS,
)

MAX_DIGITS = 1000
MAX_EXPONENT = 1000
ROUNDING = Fraction(1, 1_000_000)
"""Tolerance of decimals, absolute and relative to the gold answer; the smaller one counts."""

FEW_PLACES = 5
"""Decimals of so few places within `ROUNDING` of an exact number are near it by chance."""

_UNSIGNED = (
    r"(?:[1-9]\d{0,2}(?:\.\d{3})+,\d+(?![.\d])|[1-9]\d{0,2}(?:\ \d{3})+,\d{1,2}(?!\d)"
    r"|[1-9]\d{0,2}(?:\.\d{3}){2,}(?![.\d])"
    r"|[1-9]\d{0,2}(?:(?:,\d{3})+|(?:\ \d{3})+|(?:'\d{3})+)(?!\d)(?:\.\d*)?"
    r"|\d+(?:\.\d*)?|\.\d+)"
)
_SIGN = r"([-+]?)\s*"
_DECIMAL = re.compile(rf"{_SIGN}({_UNSIGNED})(?:[eE]([-+]?\d{{1,5}})(?![\d.]))?")
_PLAIN = re.compile(r"[-+]?\d+(?:\.\d+)?")
_FRACTION = re.compile(
    rf"{_SIGN}\\frac\{{\s*([-+]?\s*{_UNSIGNED})\s*\}}\{{\s*([-+]?\s*{_UNSIGNED})\s*\}}"
)
_SLASH = re.compile(rf"{_SIGN}\(?({_UNSIGNED})\)?\s*/\s*\(?([-+]?{_UNSIGNED})\)?")
_MIXED = re.compile(
    rf"{_SIGN}([1-9]\d{{0,2}}(?:[ ,]\d{{3}})+|\d+)\s*"
    r"(?:\s(\d+)\s*/\s*(\d+)|\\frac\{(\d+)\}\{(\d+)\})"
)
_SCIENTIFIC = re.compile(
    rf"{_SIGN}(?:({_UNSIGNED})\s*(?:\\times|\\cdot|\*|x)\s*)?10\s*(?:\^|\*\*)\s*"
    r"(?:\{\s*([-+]?\d{1,5})\s*\}|\(([-+]?\d{1,5})\)|(\d{1,5}))"
)
_REPEATING = re.compile(
    rf"{_SIGN}(\d*)\.(\d*)(?:\\(?:overline|bar|dot)\s*\{{(\d+)\}}|\\(?:bar|dot)\s*(\d)"
    r"|\((\d+)\)|(?<=\d)\.\.\.)"
)
_SHOWN_PERIOD = re.compile(r"(\d*?)(\d{1,24}?)\2{1,99}")
"""The digits of `0.1666...`: those before the period, and the shortest period, at least twice."""


class Number(NamedTuple):
    """A rational number, with flags for a decimal point and a percent sign in its text."""

    value: Fraction
    decimal: bool = False
    percent: bool = False


def equal(gold: Number, answer: Number) -> bool:
    """Return True if two numbers agree.

    A percentage agrees with its value as a fraction, and with the number before its sign.
    """
    if gold.value == answer.value and gold.percent == answer.percent:
        return True
    rounded = _is_rounding(gold, answer) if gold.decimal != answer.decimal else gold.decimal
    if gold.percent == answer.percent:
        return rounded and _close(_share(gold), _share(answer))
    return _agree(_share(gold), _share(answer), rounded=rounded) or _agree(
        gold.value, answer.value, rounded=rounded
    )


def read(text: str) -> Number | None:
    """Read a normalised text as a number; None if it is anything else, or too long."""
    text = text.strip()
    if _PLAIN.fullmatch(text) and len(text) <= MAX_DIGITS:
        return Number(_rational(text), "." in text)
    if not text or len(text) > 2 * MAX_DIGITS:
        return None
    if text[0] == "(" and text[-1] == ")" and "(" not in text[1:]:
        return read(text[1:-1])
    percent = text.endswith("%")
    if percent:
        text = text.rstrip("% ").removesuffix("\\").rstrip()
    start = prefix(text, 0)
    if start is None or start[1] != len(text):
        return None
    return start[0]._replace(percent=percent)


def prefix(text: str, start: int) -> tuple[Number, int] | None:
    """Read the longest number that begins at `start`; return it and its end, None without one."""
    longest: tuple[Number, int] | None = None
    for pattern, value_of in _FORMS:
        match = pattern.match(text, start)
        if match is None or (longest is not None and match.end() <= longest[1]):
            continue
        number = value_of(match)
        if number is not None:
            longest = number, match.end()
    return longest


def in_words(words: list[str]) -> tuple[int, int] | None:
    """Read the number in words at the start of a list; return it and how many words it took.

    `one hundred and five` is 105, `twenty one` is 21. The words are in lower case and have no
    hyphens.
    """
    total = 0
    part = 0
    num_words = 0
    last = 0
    for index, word in enumerate(words):
        if word in NUMBERS:
            value = NUMBERS[word]
            # `twenty one`, `hundred five`; not `one two`, nor `ten three`
            is_unit_of_ten = 20 <= last < 100 and 0 < value < 10
            if num_words and not (last == 100 or last >= 1000 or is_unit_of_ten):
                break
            part += value
            last = value
        elif word == "hundred" and 0 < last < 100:
            part *= 100
            last = 100
        elif word in LARGE_NUMBERS and 0 < last < LARGE_NUMBERS[word]:
            total += part * LARGE_NUMBERS[word]
            part = 0
            last = LARGE_NUMBERS[word]
        elif word == "and" and last >= 100 and words[index + 1 : index + 2] != ["a"]:
            continue
        else:
            break
        num_words = index + 1
    return (total + part, num_words) if num_words else None


def in_other_words(text: str) -> int | None:
    """Read a whole text as a number in Chinese signs, or up to 20 in a European language."""
    word = text.strip().lower()
    if word.isascii() or word in FOREIGN_NUMBERS:
        return FOREIGN_NUMBERS.get(word)
    return _chinese(word[:-1] if word[1:] and word[-1] in "个個" else word)


def _chinese(signs: str) -> int | None:
    """Read `一百零五` below 10,000; None for signs without places (`一二`)."""
    total = 0
    digit = None
    last_place = 10_000
    for sign in signs:
        if sign in CHINESE_PLACES:
            place = CHINESE_PLACES[sign]
            if place >= last_place or (digit is None and (total or place > 10)):
                return None
            total += place * (1 if digit is None else digit)
            digit = None
            last_place = place
        elif sign not in CHINESE_DIGITS or digit:
            return None
        else:
            digit = CHINESE_DIGITS[sign]
    return total + (digit or 0) if signs else None


def _is_rounding(one: Number, other: Number) -> bool:
    """Return True if the decimal of an exact number and a decimal has enough places to round it.

    One of less than six places that is near all the same is another number: `1.00` is not
    4036082/4036081.
    """
    decimal = _share(one if one.decimal else other)
    return (decimal * 10**FEW_PLACES).denominator != 1


def _share(number: Number) -> Fraction:
    return number.value / 100 if number.percent else number.value


def _agree(gold: Fraction, answer: Fraction, *, rounded: bool) -> bool:
    return gold == answer or (rounded and _close(gold, answer))


def _close(gold: Fraction, answer: Fraction) -> bool:
    return abs(gold - answer) < ROUNDING * min(Fraction(1), abs(gold))


def _plain(match: re.Match[str]) -> Number | None:
    sign, digits, exponent = match.groups()
    if len(digits) > MAX_DIGITS or (exponent and abs(int(exponent)) > MAX_EXPONENT):
        return None
    value = _rational(digits)
    if exponent:
        value *= Fraction(10) ** int(exponent)
    return Number(_signed(sign, value), _has_point(digits))


def _fraction(match: re.Match[str]) -> Number | None:
    sign, top, bottom = match.groups()
    if len(top) > MAX_DIGITS or len(bottom) > MAX_DIGITS or _rational(bottom) == 0:
        return None
    return Number(
        _signed(sign, _rational(top) / _rational(bottom)), _has_point(top) or _has_point(bottom)
    )


def _mixed(match: re.Match[str]) -> Number | None:
    """Read `4 4/9` and `1\\frac{4}{5}`, whose fraction must be smaller than one."""
    sign, whole = match.group(1, 2)
    top, bottom = (part for part in match.groups()[2:] if part is not None)
    if len(match.group()) > MAX_DIGITS or int(top) >= int(bottom):
        return None
    return Number(_signed(sign, _rational(whole) + Fraction(int(top), int(bottom))))


def _scientific(match: re.Match[str]) -> Number | None:
    sign, digits, *exponents = match.groups()
    exponent = int(next(part for part in exponents if part is not None))
    if abs(exponent) > MAX_EXPONENT or len(digits or "") > MAX_DIGITS:
        return None
    return Number(
        _signed(sign, _rational(digits or "1") * Fraction(10) ** exponent),
        _has_point(digits or "") or exponent < 0,
    )


def _repeating(match: re.Match[str]) -> Number | None:
    sign, whole, before, *periods = match.groups()
    if len(match.group()) > MAX_DIGITS:
        return None
    period = next((part for part in periods if part is not None), None)
    if period is None:
        shown = _SHOWN_PERIOD.fullmatch(before[:50])
        if shown is None or len(before) > 50:
            return None
        before, period = shown.groups()
    fraction = Fraction(int(period), 10 ** len(period) - 1) + int(before or 0)
    return Number(_signed(sign, int(whole or 0) + fraction / 10 ** len(before)))


_FORMS = (
    (_DECIMAL, _plain),
    (_FRACTION, _fraction),
    (_SLASH, _fraction),
    (_MIXED, _mixed),
    (_SCIENTIFIC, _scientific),
    (_REPEATING, _repeating),
)


def _rational(digits: str) -> Fraction:
    try:
        return Fraction(int(digits))
    except ValueError:
        return Fraction(re.sub(r"[,\s']", "", _with_point(digits)))


def _with_point(digits: str) -> str:
    """Replace the decimal comma by a point, and remove points between thousands."""
    comma = digits.rfind(",")
    if comma >= 0 and ("." in digits[:comma] or len(digits) - comma <= 3):
        return re.sub(r"[.\s]", "", digits[:comma]) + "." + digits[comma + 1 :]
    return digits.replace(".", "") if digits.count(".") > 1 else digits


def _has_point(digits: str) -> bool:
    return "." in _with_point(digits)


def _signed(sign: str, value: Fraction) -> Fraction:
    return -value if sign == "-" else value
