"""Groups of equal answers: right and wrong ones never mix, in any order of the samples."""

from __future__ import annotations

from itertools import permutations

import pytest

from reasontrain.tasks.grading import Vote, exact, group_votes
from reasontrain.tasks.grading.normalise import normalise


def exactly(one: str, other: str) -> bool:
    """The comparison without algebra, but for one identity."""
    if {one, other} == {"x+1", "1+x"}:
        return True
    sides = normalise(one), normalise(other)
    return exact.compare(*sides, {}).equal or exact.compare(*sides[::-1], {}).equal


def groups(answers: list[str]) -> set[frozenset[str]]:
    numbers = group_votes([Vote(answer, False) for answer in answers], exactly)
    return {
        frozenset(a for a, n in zip(answers, numbers, strict=True) if n == number)
        for number in set(numbers)
    }


def test_an_expression_joins_the_bare_number() -> None:
    # the verifier finds x+1 equal to 5, with and without its unit
    def same(one: str, other: str) -> bool:
        return "x+1" in (one, other) or exactly(one, other)

    votes = [Vote(answer, False) for answer in ["5 m", "5 cm", "5", "x+1"]]
    assert group_votes(votes, same) == [0, 1, 2, 2]


def test_right_answers_are_one_group_and_no_wrong_one_joins_it() -> None:
    votes = [Vote("a", True), Vote("b", False), Vote("c", True), Vote("", False), Vote("d", False)]
    assert group_votes(votes, lambda one, other: False) == [0, 1, 0, None, 2]
    assert group_votes(votes, lambda one, other: True) == [0, 1, 0, None, 1]


def test_values_need_no_comparison() -> None:
    votes = [Vote(answer, False) for answer in ["0.5", "7", "0.5", "1/2", "7", r"\frac12"]]

    def never(one: str, other: str) -> bool:
        raise AssertionError((one, other))

    assert group_votes(votes, never) == [0, 1, 0, 0, 1, 0]


def test_what_algebra_cannot_handle_is_compared_by_its_spelling() -> None:
    votes = [Vote("9^{9^9}", False, comparable=False), Vote("5", False)]
    assert group_votes([*votes, votes[0]], lambda one, other: True) == [0, 1, 0]


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (["5", "5 cm", "7"], {frozenset(["5", "5 cm"]), frozenset(["7"])}),
        # 5 may be either, so it is neither
        (["5", "5 cm", "5 m"], {frozenset(["5"]), frozenset(["5 cm"]), frozenset(["5 m"])}),
        # 25 % is 25, and it is 0.25
        (["25", r"25\%", "0.25"], {frozenset(["25"]), frozenset([r"25\%"]), frozenset(["0.25"])}),
        (["x+1", "1+x", "2"], {frozenset(["x+1", "1+x"]), frozenset(["2"])}),
        (["1, 2", "2, 1", "(1, 2)", "(2, 1)"], None),
        (
            [r"\text{east}", "East", "west"],
            {frozenset([r"\text{east}", "East"]), frozenset(["west"])},
        ),
    ],
)
def test_groups_do_not_depend_on_the_order(
    answers: list[str], expected: set[frozenset[str]] | None
) -> None:
    first = groups(answers)
    assert expected is None or first == expected
    assert all(groups(list(order)) == first for order in permutations(answers))
