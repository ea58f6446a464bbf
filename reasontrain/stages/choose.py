"""Choice of the solutions of a problem to learn from (cDPO, arXiv 2411.19943).

Solutions are grouped by equal answers; the largest groups come first.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Attempt:
    """One solution of a problem: its extracted answer ("" for none), and its verdict."""

    answer: str
    correct: bool


@dataclass(frozen=True)
class Choice:
    """Indices of the chosen solutions; `positive` and the first of `negatives` make a pair."""

    positive: int | None
    negatives: tuple[int, ...]


def choose(trials: Sequence[Attempt], draw: random.Random, *, cover: float = 0.5) -> Choice:
    """Choose among the solutions with an answer, as the paper's released code does.

    The positive is a random member of the largest group of right answers. The negatives are random
    members of the largest wrong groups, one each, until these groups hold a share `cover` of all
    wrong solutions or the next group has a single solution (the first group is always used). Groups
    of equal size are ordered by their first solution.
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
    """Group indices by equal answer, the largest group first."""
    by_answer: dict[str, list[int]] = {}
    for index, answer in answers:
        by_answer.setdefault(answer, []).append(index)
    return sorted(by_answer.values(), key=lambda group: (-len(group), group[0]))
