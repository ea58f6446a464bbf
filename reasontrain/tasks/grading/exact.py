"""Equality that needs no algebra: spellings, words, numbers.

Quick, and safe on any text; what it cannot decide it says so.
"""

from __future__ import annotations

import re

from reasontrain.tasks.grading import normalise, number, structure

_BY_ZERO = re.compile(r"/\s*0+(?![\d.])|\\frac\{[^{}]*\}\{\s*0+\s*\}")
"""Division by zero is equal to nothing but itself."""

_ADJACENT = re.compile(r"\d\s+\d")
"""Two numbers side by side that are no mixed number: a parser would add or multiply them."""


def equal(gold: str, answer: str) -> bool | None:
    """Whether two leaves (normalised expressions without lists) are equal; None where algebra would
    have to decide.
    """
    if normalise.squeezed(gold) == normalise.squeezed(answer):
        return True
    if not gold.strip() or not answer.strip():
        return False
    gold, answer = normalise.without_unit(gold), normalise.without_unit(answer)
    if normalise.squeezed(gold) == normalise.squeezed(answer):
        return True
    if _BY_ZERO.search(gold) or _BY_ZERO.search(answer):
        return False
    gold_number, answer_number = number.read(gold), number.read(answer)
    if gold_number is not None and answer_number is not None:
        return number.equal(gold_number, answer_number)
    if _ADJACENT.search(gold) or _ADJACENT.search(answer):
        return False
    words = normalise.words(gold), normalise.words(answer)
    if words[0] is not None or words[1] is not None:
        return words[0] == words[1]
    return None


def compare(
    gold: str, answer: str, known: dict[tuple[str, str], bool]
) -> tuple[bool, list[tuple[str, str]]]:
    """Whether two answers are equal, and the leaf pairs that only algebra can decide and that are
    not in `known`.

    Undecided leaves count as unequal; ask again with what algebra says of them until none is left.
    """
    undecided: dict[tuple[str, str], None] = {}

    def leaf(gold_leaf: str, answer_leaf: str) -> bool:
        decided = equal(gold_leaf, answer_leaf)
        if decided is None:
            pair = (gold_leaf, answer_leaf)
            if pair not in known:
                undecided[pair] = None
            return known.get(pair, False)
        return decided

    same = structure.equal(gold, answer, leaf)
    return same, ([] if same else list(undecided))
