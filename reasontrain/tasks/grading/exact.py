"""Equality without algebra: spellings, words and numbers.

It is fast and safe on any text; comparisons that need algebra stay undecided.
"""

from __future__ import annotations

import re

from reasontrain.tasks.grading import normalise, number, structure

_BY_ZERO = re.compile(r"/\s*0+(?![\d.])|\\frac\{[^{}]*\}\{\s*0+\s*\}")
"""Division by zero, which equals only the same text."""

_ADJACENT = re.compile(r"\d\s+\d")
"""Adjacent numbers that are not a mixed number: a parser would add or multiply them."""


def equal(gold: str, answer: str) -> bool | None:
    """Compare two normalised expressions without lists; None if only algebra can decide."""
    if normalise.squeezed(gold) == normalise.squeezed(answer):
        return True
    if not gold.strip() or not answer.strip():
        return False
    gold = normalise.without_unit(gold)
    answer = normalise.without_unit(answer)
    if normalise.squeezed(gold) == normalise.squeezed(answer):
        return True
    if _BY_ZERO.search(gold) or _BY_ZERO.search(answer):
        return False
    gold_number = number.read(gold)
    answer_number = number.read(answer)
    if gold_number is not None and answer_number is not None:
        return number.equal(gold_number, answer_number)
    if _ADJACENT.search(gold) or _ADJACENT.search(answer):
        return False
    gold_words = normalise.words(gold)
    answer_words = normalise.words(answer)
    if gold_words is not None or answer_words is not None:
        return gold_words == answer_words
    return None


def compare(
    gold: str, answer: str, known: dict[tuple[str, str], bool]
) -> tuple[bool, list[tuple[str, str]]]:
    """Compare two answers; return the result and the leaf pairs that algebra has to decide.

    `known` has the verdicts of algebra so far. Undecided leaves count as unequal: call again with
    their verdicts in `known`, until none is returned.
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
