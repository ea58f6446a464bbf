"""Equality of single values without algebra: numbers, quantities, times, dates, bases and others.

It is fast and safe on any text; comparisons that need algebra stay undecided.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from reasontrain.tasks.grading import clock, flat, normalise, notation, number, quantity, units
from reasontrain.tasks.grading.number import Number
from reasontrain.tasks.grading.quantity import Quantity

CACHE_SIZE = 20_000
"""The number of cached readings: gold answers recur, and so do most answers."""

_BY_ZERO = re.compile(r"/\s*0+(?![\d.])|\\frac\{[^{}]*\}\{\s*0+\s*\}")
"""Division by zero, which equals only the same text."""

_COMPASS = re.compile(r"\b(north|south|east|west) of (?:due )?(north|south|east|west)\b")
_ADJACENT = re.compile(r"(?<![\d._^])\d++(?:\.\d*+)?\s++\d")
"""Adjacent numbers that are not a mixed number, of which the first is no base or power."""

Reading = (
    Number
    | Quantity
    | clock.Time
    | clock.Date
    | notation.Based
    | notation.Residue
    | notation.Ratio
    | notation.Division
    | notation.Infinity
)


class Decision(NamedTuple):
    """The comparison of two values.

    Attributes:
        equal: the verdict; None if only algebra can decide.
        rule: the rule that decided, in the words of `reasontrain grade --explain`.
        pair: the two expressions that algebra has to compare, without their units.
    """

    equal: bool | None
    rule: str = ""
    pair: tuple[str, str] = ("", "")


class Key(NamedTuple):
    """A canonical form: two values with the same key are equal.

    Attributes:
        value: the number, in base units, or the spelling of anything else.
        kind: "number", "percent", "quantity", "time", ..., or "text".
        unit: base units and nouns; () without any.
    """

    value: Hashable
    kind: str
    unit: Hashable = ()


def equal(gold: str, answer: str, nouns: frozenset[str] = frozenset()) -> Decision:
    """Compare two normalised expressions without lists.

    Args:
        gold: the gold answer.
        answer: the answer of a response.
        nouns: words of the problem, which may follow a number as what it counts.
    """
    gold_value = _read(gold, nouns)
    answer_value = _read(answer, nouns)
    if type(gold_value) is Number and type(answer_value) is Number:
        return Decision(number.equal(gold_value, answer_value), "numbers")
    if normalise.squeezed(gold) == normalise.squeezed(answer):
        return Decision(True, "same text")
    if not gold.strip() or not answer.strip():
        return Decision(False, "nothing to compare")
    if _BY_ZERO.search(gold) or _BY_ZERO.search(answer):
        return Decision(False, "division by zero")
    gold_value, answer_value = _without_variables(gold_value, answer_value)
    if type(gold_value) is notation.Ratio or type(answer_value) is notation.Ratio:
        gold_value = _as_ratio(gold_value, gold)
        answer_value = _as_ratio(answer_value, answer)
    if gold_value is None and answer_value is None:
        return _texts(gold, answer)
    decision = _kinds(gold, answer, gold_value, answer_value, nouns)
    return decision if decision is not None else _mixed(gold, answer, gold_value, answer_value)


def is_single(text: str, nouns: frozenset[str] = frozenset()) -> bool:
    """Return True for one value in spite of its commas: `1,000`, `12,500 m`, `May 12, 2020`."""
    value = _read(text, nouns)
    if type(value) is Quantity:
        return value.number is not None and not value.is_opaque and not value.has_unknown
    return value is not None and type(value) is not notation.Residue


def key(text: str, nouns: frozenset[str] = frozenset()) -> Key:
    """Return a canonical form; two values with equal keys are equal.

    Args:
        text: a normalised expression without lists.
        nouns: words of the problem, which may follow a number as what it counts.
    """
    match _read(text, nouns):
        case Number(value, _, percent):
            return Key(value, "percent" if percent else "number")
        case Quantity(number=Number(value, _, percent)) as one if not (
            one.is_opaque or (one.is_letter and one.is_glued)
        ):
            if not (one.unit.dims or one.labels or one.parts or one.is_ordinal):
                return Key(value, "percent" if percent else "number")
            return Key(
                value * one.unit.factor,
                "percent" if percent else "quantity",
                (one.unit.dims, one.labels, one.parts, one.is_ordinal),
            )
        case clock.Time(seconds, has_half):
            return Key((seconds, has_half), "time")
        case clock.Date() as date:
            return Key(tuple(date), "date")
        case notation.Based() as based:
            return Key(based.digits, "base", based.base)
        case notation.Division() as division:
            return Key(tuple(division), "remainder")
        case notation.Infinity(sign):
            return Key(sign, "infinity")
    return Key(normalise.squeezed(text), "text")


def _read(text: str, nouns: frozenset[str]) -> Reading | None:
    return _read_plain(text) or _read_other(text, nouns)


@lru_cache(CACHE_SIZE)
def _read_plain(text: str) -> Number | None:
    return number.read(text)


@lru_cache(CACHE_SIZE)
def _read_other(text: str, nouns: frozenset[str]) -> Reading | None:
    """Read a text that is no plain number; None for words and expressions without a unit."""
    if len(text) > quantity.LONGEST or not text.strip():
        return None
    flat_text = flat.flatten(text)
    worded = number.in_other_words(flat_text.strip(flat.OPEN + flat.CLOSE))
    if worded is not None:
        return Number(Fraction(worded))
    reading = (
        notation.read_infinity(flat_text)
        or notation.read_based(flat_text)
        or notation.read_residue(flat_text)
        or notation.read_division(flat_text)
        or clock.read_date(flat_text)
        or clock.read_time(flat_text)
        or notation.read_ratio(flat_text)
    )
    if reading is not None:
        return reading
    amount = quantity.read(flat_text, nouns)
    if amount is not None and amount.number is not None and _is_plain(amount):
        return amount.number
    return amount


def _is_plain(amount: Quantity) -> bool:
    return not (
        amount.is_opaque
        or amount.unit.dims
        or amount.labels
        or amount.parts
        or amount.is_ordinal
        or amount.has_unknown
    )


def _as_quantity(value: Reading | None, text: str) -> Quantity | None:
    match value:
        case Quantity():
            return value
        case Number():
            return Quantity(value, text)
        case None:
            return Quantity(None, text)
    return None


def _as_ratio(value: Reading | None, text: str) -> Reading | None:
    """Read `9:24` as a ratio beside a ratio that is no time of day."""
    if type(value) is clock.Time:
        return notation.read_ratio(flat.flatten(text)) or value
    return value


def _without_variables(
    gold: Reading | None, answer: Reading | None
) -> tuple[Reading | None, Reading | None]:
    """Read a letter that may be a unit or a variable as what the other side shows."""
    return _settled(gold, answer, is_gold=True), _settled(answer, gold, is_gold=False)


def _settled(value: Reading | None, other: Reading | None, *, is_gold: bool) -> Reading | None:
    if type(value) is not Quantity or not value.is_letter:
        return value
    if type(other) is Quantity and other.unit.dims and not other.is_letter:
        return value
    # `5 m` is a length where the gold answer is a number; the gold answer `5 m` may be a product
    is_unit = type(other) is Number and not value.is_glued and not is_gold
    return value if is_unit else None


def _texts(gold: str, answer: str) -> Decision:
    """Compare words, or leave expressions to algebra."""
    if _ADJACENT.search(gold) or _ADJACENT.search(answer):
        return Decision(False, "adjacent numbers")
    gold_words = normalise.words(gold)
    answer_words = normalise.words(answer)
    words = [one for one in (gold_words, answer_words) if one is not None]
    # a single letter may be a choice, or a constant or variable that an expression equals
    if len(words) == 2 or any(len(one) > 1 for one in words):
        return Decision(gold_words == answer_words, "words")
    return Decision(None, "algebra", (gold, answer))


def _kinds(
    gold: str,
    answer: str,
    gold_value: Reading | None,
    answer_value: Reading | None,
    nouns: frozenset[str],
) -> Decision | None:
    """Compare two values of one kind; None for values of two kinds."""
    match gold_value, answer_value:
        case clock.Time(), clock.Time():
            return Decision(clock.same_time(gold_value, answer_value), "times of day")
        case clock.Date(), clock.Date():
            return Decision(clock.same_date(gold_value, answer_value), "dates")
        case notation.Based(), notation.Based():
            return Decision(
                notation.same_based(gold_value, answer_value),
                f"numbers in base {gold_value.base} and base {answer_value.base}",
            )
        case notation.Division(), notation.Division():
            return Decision(gold_value == answer_value, "quotients with a remainder")
        case notation.Infinity(), notation.Infinity():
            return Decision(gold_value == answer_value, "infinities")
        case notation.Residue(), notation.Residue():
            if not notation.same_modulus(gold_value, answer_value):
                return Decision(False, "residues: the moduli differ")
            reduced = notation.reduced(gold_value), notation.reduced(answer_value)
            if reduced[0] is not None and reduced[1] is not None:
                return Decision(reduced[0] == reduced[1], "residues")
            return equal(gold_value.value, answer_value.value, nouns)
        case notation.Ratio(), notation.Ratio():
            same = notation.same_ratio(gold_value, answer_value)
            if same is None:
                pair = notation.quotient(gold_value), notation.quotient(answer_value)
                if pair[0] is None or pair[1] is None:
                    return Decision(False, "ratios")
                return Decision(None, "ratios", (pair[0], pair[1]))
            return Decision(same, "ratios")
    return None


def _mixed(
    gold: str, answer: str, gold_value: Reading | None, answer_value: Reading | None
) -> Decision:
    """Compare values of two kinds, where only one side states what makes its kind."""
    gold_amount = _as_quantity(gold_value, gold)
    answer_amount = _as_quantity(answer_value, answer)
    if gold_amount is not None and answer_amount is not None:
        return _quantities(gold_amount, answer_amount)
    for value, other, other_text, is_gold in (
        (gold_value, answer_value, answer, True),
        (answer_value, gold_value, gold, False),
    ):
        match value:
            case notation.Based() if type(other) is Number:
                digits = notation.plain_digits(other_text)
                return Decision(value.digits == digits, f"base {value.base} on one side")
            case notation.Residue() if other is None or type(other) is Number:
                pair = (value.value, other_text) if is_gold else (other_text, value.value)
                return equal(*pair)._replace(rule="a modulus on one side")
            case notation.Ratio() if other is None or type(other) is Number:
                fraction = notation.quotient(value)
                if fraction is not None and normalise.words(other_text) is None:
                    pair = (fraction, other_text) if is_gold else (other_text, fraction)
                    return equal(*pair)._replace(rule="a ratio and its quotient")
            case clock.Time() if other is None or type(other) is Number:
                ratio = notation.read_ratio(gold if is_gold else answer)
                fraction = ratio and notation.quotient(ratio)
                if fraction and not value.has_half and normalise.words(other_text) is None:
                    pair = (fraction, other_text) if is_gold else (other_text, fraction)
                    return equal(*pair)._replace(rule="a ratio and its quotient")
            case _:
                pass
    if gold_value is None or answer_value is None:
        gold_words = normalise.words(gold)
        if gold_words is not None:
            return Decision(gold_words == normalise.words(answer), "words")
    return Decision(False, "different kinds of values")


def _quantities(gold: Quantity, answer: Quantity) -> Decision:
    rule = f"quantities: {gold.spelling or 'no unit'} against {answer.spelling or 'no unit'}"
    if not gold.spelling and not answer.spelling:
        rule = "numbers"
    if gold.is_opaque != answer.is_opaque or (gold.is_opaque and not _same_spelling(gold, answer)):
        return Decision(False, "words behind a number: " + rule.partition(": ")[2])
    if gold.parts != answer.parts:
        return Decision(False, "bounds or directions: " + rule.partition(": ")[2])
    if not _labels_agree(gold, answer):
        return Decision(False, rule)
    factor = _ratio(gold, answer)
    if factor is None and gold.unit.dims[0][0] + answer.unit.dims[0][0] not in ("degrad", "raddeg"):
        return Decision(False, rule)
    if factor is not None and gold.number is not None and answer.number is not None:
        scaled = answer.number._replace(value=answer.number.value * factor)
        return Decision(number.equal(gold.number, scaled), rule)
    if _is_angle(gold, answer) or _is_angle(answer, gold):
        factor = None
    gold_expression = _expression(gold)
    answer_expression = _expression(answer)
    if (
        gold.number is None
        and answer.number is None
        and factor == 1
        and gold.scale == answer.scale
        and normalise.squeezed(gold.expression) == normalise.squeezed(answer.expression)
    ):
        return Decision(True, rule)
    for expression in (gold.expression, answer.expression):
        if _ADJACENT.search(expression) and number.read(expression) is None:
            return Decision(False, "adjacent numbers")
    for amount in (gold, answer):
        if amount.number is None and normalise.words(amount.expression) is not None:
            return Decision(False, "words and a number")
    degrees = units.SYMBOLS["°"].dims
    if factor is None:
        side = r"\cdot \frac{\pi}{180}"
        if gold.unit.dims == degrees:
            gold_expression = f"({gold_expression}) {side}"
        else:
            answer_expression = f"({answer_expression}) {side}"
    elif factor != 1:
        answer_expression = rf"({answer_expression}) \cdot {_fraction(factor)}"
    elif gold.unit.dims == degrees and not answer.unit.dims:
        # algebra reads the other side in degrees or in radians
        gold_expression = rf"({gold_expression})^\circ"
    elif answer.unit.dims == degrees and not gold.unit.dims:
        answer_expression = rf"({answer_expression})^\circ"
    return Decision(None, "algebra", (gold_expression, answer_expression))


def _is_angle(angle: Quantity, other: Quantity) -> bool:
    """Return True for degrees against a multiple of pi without a unit, which is in radians."""
    return (
        angle.unit.dims == units.SYMBOLS["°"].dims
        and other.number is None
        and not other.unit.dims
        and r"\pi" in other.expression
        and r"\pi" not in angle.expression
    )


def _ratio(gold: Quantity, answer: Quantity) -> Fraction | None:
    """The size of the answer's unit in the gold answer's; 1 if only one side has a unit."""
    if not gold.unit.dims or not answer.unit.dims:
        return Fraction(1)
    ratio = units.ratio(gold.unit, answer.unit)
    # `18 dollars per day` of which only one side says that it is per day
    if (
        ratio is None
        and gold.money is not None
        and answer.money is not None
        and (gold.money.dims == gold.unit.dims or answer.money.dims == answer.unit.dims)
    ):
        return units.ratio(gold.money, answer.money)
    return ratio


def _labels_agree(gold: Quantity, answer: Quantity) -> bool:
    """Compare what is counted, and units where only one side has one."""
    if answer.has_unknown and not answer.labels <= gold.labels:
        return False
    # `north of east` is another direction than `east of north`
    directions = [_COMPASS.findall(amount.spelling.lower()) for amount in (gold, answer)]
    if all(directions) and directions[0] != directions[1]:
        return False
    if (
        gold.labels
        and answer.labels
        and not (gold.labels <= answer.labels or answer.labels <= gold.labels)
    ):
        return False
    if gold.is_ordinal != answer.is_ordinal and any(
        amount.unit.dims or (amount.labels and not amount.is_ordinal) for amount in (gold, answer)
    ):
        return False
    if bool(gold.unit.dims) == bool(answer.unit.dims):
        return True
    with_unit, without = (gold, answer) if gold.unit.dims else (answer, gold)
    if with_unit.is_compound and not units.is_currency(with_unit.unit):
        return False
    is_generic = with_unit.unit.dims[0][0] == "unit"
    return not without.labels or is_generic or without.labels <= with_unit.labels


def _same_spelling(gold: Quantity, answer: Quantity) -> bool:
    return normalise.squeezed(gold.spelling).lower() == normalise.squeezed(answer.spelling).lower()


def _expression(amount: Quantity) -> str:
    """The text of a quantity for algebra, without its unit."""
    if amount.number is not None:
        # magnitude words, signs and percentages are in the number
        value = amount.number.value
        is_scaled = (
            amount.scale != 1 or amount.is_compound or number.read(amount.expression) is None
        )
        return _fraction(value) if is_scaled else amount.expression
    if amount.scale != 1:
        return rf"({amount.expression}) \cdot {_fraction(amount.scale)}"
    return amount.expression


def _fraction(value: Fraction) -> str:
    if value.denominator == 1:
        return str(value.numerator)
    return rf"\frac{{{value.numerator}}}{{{value.denominator}}}"
