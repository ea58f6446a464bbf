"""Groups of equal answers: right and wrong ones never mix, and few comparisons are made."""

from __future__ import annotations

from reasontrain.tasks.grading import Vote, group_votes


def test_right_answers_are_one_group_and_no_wrong_one_joins_it() -> None:
    votes = [Vote("a", True), Vote("b", False), Vote("c", True), Vote("", False), Vote("d", False)]
    assert group_votes(votes, lambda one, other: False) == [0, 1, 0, None, 2]
    assert group_votes(votes, lambda one, other: True) == [0, 1, 0, None, 1]


def test_spellings_are_compared_before_anything_else() -> None:
    compared: list[tuple[str, str]] = []

    def same(one: str, other: str) -> bool:
        compared.append((one, other))
        return {one, other} == {"0.5", "1/2"}

    votes = [Vote(answer, False) for answer in ["0.5", "7", "0.5", "1/2", "7", "1/2"]]
    assert group_votes(votes, same) == [0, 1, 0, 0, 1, 0]
    assert compared == [("0.5", "7"), ("0.5", "1/2")]


def test_what_algebra_cannot_handle_is_compared_by_its_spelling() -> None:
    votes = [Vote("9^{9^9}", False, comparable=False), Vote("5", False)]
    assert group_votes([*votes, votes[0]], lambda one, other: True) == [0, 1, 0]
