"""Comparison of two answers as far as it needs no algebra."""

from __future__ import annotations

import re
from typing import NamedTuple

from reasontrain.tasks.grading import leaf, structure

_INTEGER = re.compile(r"[0-9]+")
"""The commonest answers, which need no further reading."""


class Result(NamedTuple):
    """The comparison of two answers.

    Attributes:
        equal: the verdict; undecided leaves count as unequal.
        pairs: the leaf pairs that algebra has to decide, if the verdict depends on them.
        rule: the rules that were used, for people.
    """

    equal: bool
    pairs: list[tuple[str, str]]
    rule: str


def compare(
    gold: str,
    answer: str,
    known: dict[tuple[str, str], bool],
    nouns: frozenset[str] = frozenset(),
) -> Result:
    """Compare two normalised answers.

    Call again with the verdicts of algebra, until no pair is returned.

    Args:
        gold: the gold answer.
        answer: the answer of a response.
        known: the verdicts of algebra so far.
        nouns: words of the problem that may name what a number counts.
    """
    if gold == answer:
        return Result(True, [], "same text")
    if _INTEGER.fullmatch(gold) and _INTEGER.fullmatch(answer):
        return Result(gold.lstrip("0") == answer.lstrip("0"), [], "numbers")
    undecided: dict[tuple[str, str], None] = {}

    def decide(gold_leaf: str, answer_leaf: str) -> bool:
        decision = leaf.equal(gold_leaf, answer_leaf, nouns)
        comparison.rules.append(decision.rule)
        if decision.equal is not None:
            return decision.equal
        if decision.pair not in known:
            undecided[decision.pair] = None
        return known.get(decision.pair, False)

    comparison = structure.Comparison(decide, nouns)
    equal = comparison.equal(gold, answer)
    return Result(
        equal, [] if equal else list(undecided), "; ".join(dict.fromkeys(comparison.rules))
    )
