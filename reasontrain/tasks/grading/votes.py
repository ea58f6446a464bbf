"""Groups of equal answers to one problem, for majority votes and for counts of wrong answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from reasontrain.tasks.grading.normalise import spelling


class Vote(NamedTuple):
    """An extracted answer and its verdict.

    Attributes:
        answer: the extracted answer; "" if there is none.
        correct: it equals the gold answer.
        comparable: algebra can handle it; if not, only its spelling is compared.
    """

    answer: str
    correct: bool
    comparable: bool = True


def group_votes(votes: Sequence[Vote], same: Callable[[str, str], bool]) -> list[int | None]:
    """Number the answers to one problem so that equal answers have equal numbers.

    One equivalence decides for right and wrong answers alike. Spellings are compared first, since
    most equal answers share one, and then only the first answers of the groups.

    Args:
        votes: the answers.
        same: the verifier's comparison of two answers.

    Returns:
        The number of each answer's group, by first occurrence from 0; None without an answer.
    """
    number_of: dict[tuple[bool, str], int] = {}
    first: list[Vote] = []
    numbers: list[int | None] = []
    for vote in votes:
        if not vote.answer:
            numbers.append(None)
            continue
        key = (vote.correct, spelling(vote.answer))
        if key not in number_of:
            equal = (number for number, one in enumerate(first) if _is_equal(one, vote, same))
            number_of[key] = next(equal, len(first))
            if number_of[key] == len(first):
                first.append(vote)
        numbers.append(number_of[key])
    return numbers


def _is_equal(one: Vote, other: Vote, same: Callable[[str, str], bool]) -> bool:
    if one.correct or other.correct:
        # both equal the gold answer, or only one does
        return one.correct and other.correct
    return one.comparable and other.comparable and same(one.answer, other.answer)
