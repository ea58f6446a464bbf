r"""Sets of real numbers, compared in any notation: inequalities, intervals, unions, set-builders.

At least one of two texts must be an inequality, a union or a set-builder: two bare pairs may be
points. Only the grader's worker imports this module.
"""

from __future__ import annotations

from collections.abc import Sequence

import sympy
from sympy import Expr, Interval, Set, Symbol

from reasontrain.tasks.grading import latex
from reasontrain.tasks.grading.latex import Reading
from reasontrain.tasks.grading.tokens import Token, tokens
from reasontrain.tasks.grading.vocabulary import RELATIONS, UnreadableError

_OPENING = frozenset(["(", "[", "{", r"\{", r"\lbrace"])
_CLOSING = frozenset([")", "]", "}", r"\}", r"\rbrace"])
_OPERATORS = {
    r"\cup": sympy.Union,
    "U": sympy.Union,
    r"\cap": sympy.Intersection,
    r"\setminus": sympy.Complement,
    r"\backslash": sympy.Complement,
    **dict.fromkeys(["or", r"\lor", r"\vee"], sympy.Union),
    **dict.fromkeys(["and", r"\land", r"\wedge"], sympy.Intersection),
}
_REALS = ([r"\mathbb", "{", "R", "}"], [r"\mathbb", "R"], [r"\R"], [r"\Reals"])
_EMPTY = ([r"\emptyset"], [r"\varnothing"], [r"\{", r"\}"])
_SUCH_THAT = frozenset([r"\mid", "|", ":", r"\colon"])


def equal(gold: str, answer: str) -> bool:
    """Return True if two texts denote the same set of reals; False if one cannot be read."""
    try:
        texts = [tokens(text) for text in (gold, answer)]
        parts = [_without_member(text) for text in texts]
        if all(_is_pair(part) for part in parts):
            return False
        gold_variables, answer_variables = map(_variables, texts)
        if gold_variables and answer_variables and gold_variables != answer_variables:
            return False
        gold_set, answer_set = (_region(part) for part in parts)
    except (UnreadableError, NotImplementedError):
        return False
    return bool(gold_set == answer_set or gold_set.symmetric_difference(answer_set).is_empty)


def is_region(text: str) -> bool:
    """Return True if a text may denote a set of reals, by its signs."""
    marks = ("<", ">", r"\le", r"\ge", r"\ne", "!=", "[", r"\{", r"\in", r"\cup", r"\mathbb")
    pair = text.startswith("(") and "," in text
    empty = text.strip() in (r"\emptyset", r"\varnothing")
    return pair or empty or any(mark in text for mark in marks)


def _without_member(parts: list[Token]) -> list[Token]:
    r"""Drop the variable of `x \in`."""
    is_member = len(parts) > 2 and parts[0].kind == "letter" and parts[1].text == r"\in"
    return parts[2:] if is_member else parts


def _variables(parts: Sequence[Token]) -> set[str]:
    r"""The variables of inequalities and of `x \in`; those of a set-builder are bound."""
    bare = any(part.text in RELATIONS for part in parts) and not any(
        part.text in (r"\{", r"\lbrace") for part in parts
    )
    if bare or len(_without_member(list(parts))) < len(parts):
        letters = parts if bare else parts[:1]
        return {part.text for part in letters if part.kind == "letter" and part.text not in "eiU"}
    return set()


def _is_pair(parts: Sequence[Token]) -> bool:
    """Return True for `(a, b)` with brackets of any kind, and for one expression."""
    is_set = any(
        part.text in RELATIONS or part.text in _OPERATORS or part.text == r"\mathbb"
        for part in parts
    )
    return not is_set and _texts(parts) not in _EMPTY


def _texts(parts: Sequence[Token]) -> list[str]:
    return [part.text for part in parts]


def _region(parts: Sequence[Token]) -> Set:
    """Read a region: sets with operators between them, from left to right."""
    start = 0
    region: Set | None = None
    operator = ""
    depth = 0
    for index, part in enumerate([*parts, Token("end", "")]):
        depth += (part.text in _OPENING) - (part.text in _CLOSING)
        if part.kind == "end" or (depth == 0 and part.text in _OPERATORS):
            member = _member(parts[start:index])
            region = member if region is None else _OPERATORS[operator](region, member)
            operator = part.text
            start = index + 1
    assert region is not None
    return region


def _member(parts: Sequence[Token]) -> Set:
    """Read one set without operators."""
    texts = _texts(parts)
    if texts in _REALS:
        return sympy.S.Reals
    if texts in _EMPTY:
        return sympy.S.EmptySet
    if len(parts) < 3 or texts[0] not in _OPENING or texts[-1] not in _CLOSING:
        return _solutions(latex.read_tokens(parts))
    inside = parts[1:-1]
    if texts[0] in (r"\{", r"\lbrace"):
        return _in_braces(inside)
    items = _split(inside, {","})
    if len(items) == 1:
        return _region(inside)
    if len(items) != 2 or texts[0] not in ("(", "[") or texts[-1] not in (")", "]"):
        raise UnreadableError("more than two ends")
    ends = [_constant(item) for item in items]
    if not bool(ends[0] < ends[1]):
        raise UnreadableError("ends in the wrong order")
    return Interval(ends[0], ends[1], texts[0] == "(", texts[-1] == ")")


def _in_braces(inside: Sequence[Token]) -> Set:
    head, *conditions = _split(inside, _SUCH_THAT)
    if not conditions:
        return sympy.FiniteSet(*(_constant(item) for item in _split(inside, {","})))
    texts = _texts(head)
    if head[0].kind != "letter" or (texts[1:] and texts[1] != r"\in"):
        raise UnreadableError("a set-builder")
    domain = _region(head[2:]) if len(head) > 1 else sympy.S.Reals
    conditions = _split(inside[len(head) + 1 :], {","})
    return sympy.Intersection(domain, *(_region(condition) for condition in conditions))


def _split(parts: Sequence[Token], separators: frozenset[str] | set[str]) -> list[list[Token]]:
    items: list[list[Token]] = [[]]
    depth = 0
    for part in parts:
        depth += (part.text in _OPENING) - (part.text in _CLOSING)
        if depth == 0 and part.text in separators:
            items.append([])
        else:
            items[-1].append(part)
    return items


def _constant(parts: Sequence[Token]) -> Expr:
    reading = latex.read_tokens(parts)
    if reading.relations or reading.sides[0].free_symbols or not reading.sides[0].is_extended_real:
        raise UnreadableError("an end that is no real number")
    return reading.sides[0]


def _solutions(reading: Reading) -> Set:
    """Solve inequalities in one variable."""
    symbols: set[Symbol] = set().union(*(side.free_symbols for side in reading.sides))
    if len(symbols) != 1 or "=" in reading.relations or not reading.relations or reading.signs:
        raise UnreadableError("no inequalities in one variable")
    (variable,) = symbols
    kinds = {"<": sympy.Lt, "<=": sympy.Le, ">": sympy.Gt, ">=": sympy.Ge, "!=": sympy.Ne}
    region: Set = sympy.S.Reals
    pairs = zip(reading.sides, reading.sides[1:], strict=False)
    for relation, (left, right) in zip(reading.relations, pairs, strict=True):
        if left.has(sympy.oo) or right.has(sympy.oo):
            continue
        solved = sympy.solve_univariate_inequality(
            kinds[relation](left, right), variable, relational=False
        )
        region = sympy.Intersection(region, solved)
    return region
