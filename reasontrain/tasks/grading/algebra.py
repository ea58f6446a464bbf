"""Equality of expressions, equations and inequalities, by SymPy.

Only the grader's worker imports this module. Constants are equal if they agree to 25 digits, or to
six decimals if one of them has a decimal point. Expressions in variables are evaluated at a few
points, which can refute equality; only algebra can prove it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import sympy
from sympy import Expr, Integer, Rational, Symbol

from reasontrain.tasks.grading import latex, number, regions
from reasontrain.tasks.grading.latex import Reading
from reasontrain.tasks.grading.tokens import spelling
from reasontrain.tasks.grading.vocabulary import UnreadableError

T = TypeVar("T")

DIGITS = 30
"""Digits to which constants are evaluated."""
AGREEMENT = Rational(1, 10**25)
"""Relative difference of constants that are equal."""
ROUNDING = Rational(number.ROUNDING)
"""Tolerance of decimals, that of the exact rules."""
SCREEN_DIGITS = 15
SCREEN_AGREEMENT = Rational(1, 10**9)
"""Relative difference of values at one point that refutes equality."""
POINTS = (
    ("0.7390851332", "1.2837462514", "0.3178912744", "1.7219037461", "0.9143278465"),
    ("5.2310987456", "3.8917264513", "2.4310987561", "4.1092837465", "6.3209847561"),
)
"""Values of the variables, in alphabetical order and repeated, at two points."""
MAX_NEGATED = 6
"""The most variables that also take a negative value, one at a time."""


def equal(gold: str, answer: str) -> bool:
    """Compare two texts, as mathematics if both can be read and otherwise by their tokens."""
    readings = [_read(text) for text in (gold, answer)]
    gold_reading, answer_reading = readings
    if gold_reading and answer_reading:
        pairs = _angles(gold_reading, answer_reading)
        if any(_readings_equal(*pair) for pair in pairs):
            return True
    elif _same_spelling(gold, answer):
        return True
    if not all(regions.is_region(text) for text in (gold, answer)):
        return False
    return regions.equal(gold, answer)


def _read(text: str) -> Reading | None:
    try:
        return latex.read(text)
    except UnreadableError:
        return None


def _same_spelling(gold: str, answer: str) -> bool:
    try:
        return spelling(gold) == spelling(answer)
    except UnreadableError:
        return False


def _angles(gold: Reading, answer: Reading) -> Iterator[tuple[Reading, Reading]]:
    """Give the degree sign a value: its radians, or one if it is only on one side."""
    in_degrees = [any(side.has(latex.DEGREE) for side in one.sides) for one in (gold, answer)]
    if not any(in_degrees):
        yield gold, answer
        return
    radians = sympy.pi / 180
    yield _substitute(gold, latex.DEGREE, radians), _substitute(answer, latex.DEGREE, radians)
    # a number of degrees, not an angle within an expression: \min(35^\circ, 2) is no number
    are_angles = [all(map(_is_angle, one.sides)) for one in (gold, answer)]
    if not all(in_degrees) and are_angles == in_degrees:
        one = sympy.S.One
        yield _substitute(gold, latex.DEGREE, one), _substitute(answer, latex.DEGREE, one)


def _is_angle(side: Expr) -> bool:
    r"""Return True for a sum of degrees and unknown angles: `35^\circ`, `180^\circ - x`."""
    others = side.subs(latex.DEGREE, 0)
    degrees = sympy.expand((side - others) / latex.DEGREE)
    return not (degrees == 0 or degrees.has(latex.DEGREE) or (others.is_number and others != 0))


def _substitute(reading: Reading, symbol: Symbol, value: Expr) -> Reading:
    sides = [side.subs(symbol, value) for side in reading.sides]
    return Reading(sides, reading.relations, reading.decimal, reading.signs)


def _readings_equal(gold: Reading, answer: Reading) -> bool:
    if gold.signs or answer.signs:
        return _with_signs_equal(gold, answer)
    if not gold.relations and not answer.relations:
        decimal = gold.decimal or answer.decimal
        return expressions_equal(gold.sides[0], answer.sides[0], decimal=decimal)
    if not gold.relations or not answer.relations:
        return _named_equal(gold, answer)
    if len(gold.relations) != len(answer.relations):
        return False
    gold_links = _links(gold)
    answer_links = _links(answer)
    return _matched(gold_links, answer_links, _links_equal)


def _named_equal(gold: Reading, answer: Reading) -> bool:
    """Compare an expression with the value of a named one: `33` with `m + n = 33`."""
    values = []
    for reading in (gold, answer):
        *names, value = reading.sides
        if set(reading.relations) - {"="} or any(
            not name.free_symbols or name.atoms(sympy.Number) - {sympy.S.NegativeOne}
            for name in names
        ):
            return False
        values.append(value)
    return expressions_equal(*values, decimal=gold.decimal or answer.decimal)


def _with_signs_equal(gold: Reading, answer: Reading) -> bool:
    """Compare the two values that a sign of both kinds gives to each text, in any order."""
    if gold.signs != answer.signs:
        return False
    gold_values, answer_values = (
        [
            Reading(_substitute(one, latex.SIGN, sign).sides, one.relations, one.decimal)
            for sign in (sympy.S.One, sympy.S.NegativeOne)
        ]
        for one in (gold, answer)
    )
    return _matched(gold_values, answer_values, _readings_equal)


def _matched(golds: Sequence[T], answers: Sequence[T], same: Callable[[T, T], bool]) -> bool:
    """Return True if each gold item equals an answer, and each answer a gold item."""
    table = [[same(gold, answer) for answer in answers] for gold in golds]
    return all(any(row) for row in table) and all(
        any(column) for column in zip(*table, strict=True)
    )


def _links(reading: Reading) -> list[tuple[str, Expr]]:
    """Turn each relation into a difference that is `=`, `!=`, `<` or `<=` zero."""
    pairs = zip(reading.sides, reading.sides[1:], strict=False)
    return [
        (relation.replace(">", "<"), right - left if ">" in relation else left - right)
        for relation, (left, right) in zip(reading.relations, pairs, strict=True)
    ]


def _links_equal(gold: tuple[str, Expr], answer: tuple[str, Expr]) -> bool:
    """Compare two relations with zero, which may differ by a constant factor.

    Equations may also differ by denominators. A factor of inequalities must be positive.
    """
    relation, gold_side = gold
    answer_relation, answer_side = answer
    if relation != answer_relation:
        return False
    is_equation = relation in ("=", "!=")
    gold_difference, answer_difference = (
        sympy.expand(_numerator(difference) if is_equation else difference)
        for difference in (gold_side, answer_side)
    )
    # what holds always, or never, has no ratio to anything
    if not gold_difference.free_symbols or not answer_difference.free_symbols:
        return bool(gold_difference == answer_difference)
    factor = _ratio(gold_difference, answer_difference)
    if factor is None:
        return False
    quotient = sympy.cancel(gold_difference / answer_difference)
    if not quotient.free_symbols:
        return bool(quotient.is_positive) or (is_equation and bool(quotient.is_negative))
    return abs(factor - 1) < SCREEN_AGREEMENT and expressions_equal(
        gold_difference, answer_difference, decimal=False
    )


def _ratio(gold: Expr, answer: Expr) -> Expr | None:
    """Return the ratio of two expressions at a point; None if it depends on the point."""
    ratios: list[Expr] = []
    for point in _points(gold, answer):
        gold_value = _value(gold, point)
        answer_value = _value(answer, point)
        if gold_value is not None and answer_value:
            ratios.append(gold_value / answer_value)
    first = ratios[0] if ratios else sympy.S.One
    same = all(abs(ratio - first) <= SCREEN_AGREEMENT * abs(first) for ratio in ratios)
    return first if same else None


def _numerator(difference: Expr) -> Expr:
    return sympy.fraction(sympy.together(difference))[0]


def expressions_equal(gold: Expr, answer: Expr, *, decimal: bool) -> bool:
    """Compare two expressions.

    Args:
        gold: the gold answer.
        answer: the answer of a response.
        decimal: one of them has a decimal point, so constants agree to its rounding.
    """
    if gold == answer:
        return True
    if gold.is_infinite or answer.is_infinite:
        return False
    if not gold.free_symbols and not answer.free_symbols:
        same = _constants_equal(gold, answer, decimal=decimal)
        if same is not None:
            return same
        return _proved(gold - answer)
    gold, answer = _with_integers(gold, answer)
    positive = _domain(gold, answer)
    return positive is not None and _proved((gold - answer).subs(positive))


def _constants_equal(gold: Expr, answer: Expr, *, decimal: bool) -> bool | None:
    """Compare the values of two constants; None if they have no value or may both be zero."""
    if gold.is_Rational and answer.is_Rational and not decimal:
        return bool(gold == answer)
    values = [sympy.N(side, DIGITS) for side in (gold, answer)]
    if not all(value.is_number and value.is_finite for value in values):
        return None
    tiny = [abs(value) < AGREEMENT**2 for value in values]
    if any(tiny) and (all(tiny) or gold == 0 or answer == 0):
        return None
    return bool(_close(*values, decimal=decimal))


def _close(gold: Expr, answer: Expr, *, decimal: bool) -> bool:
    difference = abs(gold - answer)
    if decimal:
        return bool(difference < ROUNDING * sympy.Min(1, abs(gold)))
    return bool(difference <= AGREEMENT * abs(gold))


def _points(*expressions: Expr) -> Iterator[dict[Symbol, Rational]]:
    """Yield values of all variables: two positive points, then points with one negative value."""
    symbols: set[Symbol] = set().union(*(expression.free_symbols for expression in expressions))
    names = sorted(symbols, key=lambda symbol: symbol.name)
    points = [
        {
            name: Integer(2 * i + j + 2)
            if name.is_integer
            else Rational(values[i % len(values)]) + i
            for i, name in enumerate(names)
        }
        for j, values in enumerate(POINTS)
    ]
    yield from points
    for name in names[:MAX_NEGATED]:
        yield {**points[0], name: -points[0][name]}


def _value(expression: Expr, point: dict[Symbol, Rational]) -> Expr | None:
    """Evaluate an expression at a point; None if it has no finite value there."""
    try:
        value = expression.evalf(SCREEN_DIGITS, subs=point, chop=True)
    # `n!!` has no value for other numbers than integers
    except ValueError:
        return None
    # no Python number, which `3^{2007}` would overflow
    return value if value.is_number and value.is_finite else None


def _domain(gold: Expr, answer: Expr) -> dict[Symbol, Symbol] | None:
    """Compare two expressions at points.

    Without the imaginary unit, only real values count: `\\sqrt{x}` has none for negative x.

    Returns:
        None if the values differ clearly. Otherwise, a positive variable for each variable whose
        negative value has no real value of the expressions.
    """
    positive: dict[Symbol, Symbol] = {}
    is_complex = gold.has(sympy.I) or answer.has(sympy.I)
    for point in _points(gold, answer):
        gold_value = _value(gold, point)
        answer_value = _value(answer, point)
        if gold_value is None or answer_value is None:
            continue
        are_real = [is_complex or value.is_real for value in (gold_value, answer_value)]
        scale = max(abs(gold_value), abs(answer_value), SCREEN_AGREEMENT)
        if all(are_real):
            if abs(gold_value - answer_value) > SCREEN_AGREEMENT * scale:
                return None
        elif any(are_real) and not _has_odd_roots_alone(gold - answer):
            return None
        else:
            positive |= {
                name: Symbol(name.name, positive=True) for name, value in point.items() if value < 0
            }
    return positive


def _has_odd_roots_alone(expression: Expr) -> bool:
    """Return True if only odd roots can have no real value: `x^{2/3}` means the real one."""
    exponents = [power.exp for power in expression.atoms(sympy.Pow) if not power.exp.is_integer]
    return not expression.has(sympy.log) and all(
        exponent.is_Rational and exponent.q % 2 == 1 for exponent in exponents
    )


def _with_integers(*expressions: Expr) -> Sequence[Expr]:
    r"""Take k, m and n for integers if they are powers of -1 or multiples of pi: `\cos n\pi`."""
    of_integers = set()
    for expression in expressions:
        for power in expression.atoms(sympy.Pow):
            if power.base == -1:
                of_integers |= power.exp.free_symbols
        for function in expression.atoms(sympy.sin, sympy.cos, sympy.tan):
            if function.has(sympy.pi):
                of_integers |= function.free_symbols
    integers = {
        symbol: Symbol(symbol.name, integer=True)
        for symbol in of_integers
        if symbol.name in ("k", "m", "n")
    }
    return [expression.subs(integers) for expression in expressions] if integers else expressions


def _proved(difference: Expr) -> bool:
    """Return True if algebra reduces a difference to zero, by the cheapest of several ways."""
    ways: tuple[Callable[[Expr], Expr], ...] = (
        lambda value: sympy.expand(value, func=True),
        lambda value: _numerator(value).expand(func=True),
        lambda value: sympy.factor(value, deep=True),
        sympy.simplify,
        lambda value: sympy.simplify(value.expand(func=True)),
        lambda value: sympy.simplify(value.rewrite(sympy.exp)),
    )
    return any(way(difference) == 0 for way in ways)
