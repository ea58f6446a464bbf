"""Equality of single values without algebra: numbers with units, dates, names of things.

It is fast and safe on any text; comparisons that need algebra stay undecided.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import NamedTuple

from reasontrain.tasks.grading import normalise, number

_BY_ZERO = re.compile(r"/\s*0+(?![\d.])|\\frac\{[^{}]*\}\{\s*0+\s*\}")
"""Division by zero, which equals only the same text."""

_ADJACENT = re.compile(r"\d\s+\d")
"""Adjacent numbers that are not a mixed number: a parser would add or multiply them."""


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


def equal(gold: str, answer: str, nouns: frozenset[str] = frozenset()) -> Decision:
    """Compare two normalised expressions without lists.

    Args:
        gold: the gold answer.
        answer: the answer of a response.
        nouns: words of the problem, which may follow a number as what it counts.
    """
    if normalise.squeezed(gold) == normalise.squeezed(answer):
        return Decision(True, "same text")
    if not gold.strip() or not answer.strip():
        return Decision(False, "nothing to compare")
    gold = normalise.without_unit(gold)
    answer = normalise.without_unit(answer)
    if normalise.squeezed(gold) == normalise.squeezed(answer):
        return Decision(True, "same text without units")
    if _BY_ZERO.search(gold) or _BY_ZERO.search(answer):
        return Decision(False, "division by zero")
    gold_number = number.read(gold)
    answer_number = number.read(answer)
    if gold_number is not None and answer_number is not None:
        return Decision(number.equal(gold_number, answer_number), "numbers")
    if _ADJACENT.search(gold) or _ADJACENT.search(answer):
        return Decision(False, "adjacent numbers")
    gold_words = normalise.words(gold)
    answer_words = normalise.words(answer)
    if gold_words is not None or answer_words is not None:
        return Decision(gold_words == answer_words, "words")
    return Decision(None, "algebra", (gold, answer))


class Key(NamedTuple):
    """A canonical form: two values with the same key are equal.

    Attributes:
        value: the number, in base units, or the spelling of anything else.
        kind: "number", "percent" or "text".
        unit: base units and nouns; () without any.
    """

    value: Hashable
    kind: str
    unit: Hashable = ()


def key(text: str, nouns: frozenset[str] = frozenset()) -> Key:
    """Return a canonical form; two values with equal keys are equal."""
    bare = normalise.without_unit(text)
    value = number.read(bare)
    if value is None:
        return Key(normalise.squeezed(text), "text")
    if value.percent or bare == text:
        return Key(value.value, "percent" if value.percent else "number")
    return Key(value.value, "quantity", normalise.squeezed(text))


def is_single(text: str, nouns: frozenset[str] = frozenset()) -> bool:
    """Return True for one number in spite of its commas: `1,000`, `12,500 m`."""
    return number.read(normalise.without_unit(text)) is not None
