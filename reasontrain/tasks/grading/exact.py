"""Comparison of two answers as far as it needs no algebra."""

from __future__ import annotations

from reasontrain.tasks.grading import leaf, structure


def compare(
    gold: str, answer: str, known: dict[tuple[str, str], bool]
) -> tuple[bool, list[tuple[str, str]]]:
    """Compare two answers; return the result and the leaf pairs that algebra has to decide.

    `known` has the verdicts of algebra so far. Undecided leaves count as unequal: call again with
    their verdicts in `known`, until none is returned.
    """
    undecided: dict[tuple[str, str], None] = {}

    def decide(gold_leaf: str, answer_leaf: str) -> bool:
        decision = leaf.equal(gold_leaf, answer_leaf)
        if decision.equal is not None:
            return decision.equal
        if decision.pair not in known:
            undecided[decision.pair] = None
        return known.get(decision.pair, False)

    same = structure.equal(gold, answer, decide)
    return same, ([] if same else list(undecided))
