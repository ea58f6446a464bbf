"""Choose the solutions of a problem to learn from, by groups of equal answers, the largest first
(cDPO, arXiv 2411.19943).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Attempt:
    """One solution of a problem: its extracted answer ("" for none), and whether it is correct."""

    answer: str
    correct: bool


@dataclass(frozen=True)
class Choice:
    """Indices of the chosen solutions; `positive` and the first of `negatives` make a pair."""

    positive: int | None
    negatives: tuple[int, ...]


def choose(trials: Sequence[Attempt], draw: random.Random, *, cover: float = 0.5) -> Choice:
    """The choice of the released code, among solutions with an answer.

    positive: a random member of the largest group of right answers. negatives: a random member of
    each of the largest wrong groups, until these hold a share `cover` of all wrong solutions; after
    the first group, one of a single solution gives none. Groups of equal size go by their first
    solution.
    """
    right, wrong = (
        _groups([(i, t.answer) for i, t in enumerate(trials) if t.answer and t.correct is c])
        for c in (True, False)
    )
    positive = draw.choice(right[0]) if right else None
    negatives: list[int] = []
    covered = 0
    needed = cover * sum(map(len, wrong))
    for place, group in enumerate(wrong):
        if covered >= needed or (place and len(group) == 1):
            break
        negatives.append(draw.choice(group))
        covered += len(group)
    return Choice(positive, tuple(negatives))


def _groups(answers: Sequence[tuple[int, str]]) -> list[list[int]]:
    """Indices by equal answer, the largest group first."""
    by_answer: dict[str, list[int]] = {}
    for index, answer in answers:
        by_answer.setdefault(answer, []).append(index)
    return sorted(by_answer.values(), key=lambda group: (-len(group), group[0]))
