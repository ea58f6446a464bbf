"""Votes fall into the same classes whatever the order of the samples."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence

import pytest

from reasontrain.tasks.grading import Grader, Vote, group_votes

CLASSES: dict[str, list[list[str]]] = {
    "numbers": [
        ["1/2", "0.5", r"\frac12", r"\dfrac{1}{2}", r"\frac{2}{4}", ".50", "x = 0.5"],
        ["2", "2.0", "+2", r"x = 2", r"\frac{4}{2}", "02"],
        ["1000", "1,000", "1{,}000", r"10^3", r"1\,000"],
        ["-7", "−7", r"\frac{-14}{2}"],
    ],
    "a bare number and one unit": [
        ["5", r"5 \text{ cm}", "5cm", r"5\,\mathrm{cm}", "5.0"],
        ["6", r"6 \text{ cm}"],
        ["7"],
    ],
    "a bare number and two units": [
        ["5", "5.0", r"\frac{10}{2}"],
        [r"5 \text{ cm}", "5 cm"],
        [r"5 \text{ kg}", "5kg"],
    ],
    "units that convert": [
        [r"2 \text{ m}", r"200 \text{ cm}", "2m"],
        [r"2 \text{ cm}", "20 mm"],
        ["3 hours", "180 minutes"],
    ],
    "lists": [
        ["2, 3", "3, 2", r"3 \text{ and } 2", r"\{2, 3\}", r"x = 2 \text{ or } x = 3"],
        ["2, 4", "4, 2"],
        ["2, 3, 4", "4, 3, 2"],
    ],
    "tuples": [
        ["(2, 3)", r"\left(2, 3\right)", "(2.0, 3)", r"(\frac{4}{2}, 3)"],
        ["(3, 2)", "( 3 , 2 )"],
        ["(2, 3, 4)"],
    ],
    "intervals": [
        [r"[1, \infty)", r"x \ge 1", r"[1, +\infty)", r"x \in [1, \infty)"],
        [r"(1, \infty)", "x > 1"],
        ["[1, 2]", r"1 \le x \le 2"],
    ],
    "expressions": [
        ["x+1", "1+x", r"\frac{2x+2}{2}"],
        [r"2\sqrt{3}", r"\sqrt{12}", r"\frac{6}{\sqrt{3}}"],
        ["x-1", "-1+x"],
    ],
    "words and kinds": [
        [r"\text{east}", "east", r"\textbf{East}"],
        [r"\text{west}", "west"],
        ["1101_2", "1101_{2}"],
        ["1101_3"],
        [r"3 \pmod 7", r"3 \pmod{7}"],
        [r"3 \pmod 5"],
    ],
    "bare numbers twice": [
        ["8"],
        [r"8 \text{ dollars}", r"\$8", r"\$8.00"],
        [r"8 \text{ hours}", "8 hours"],
        [r"8 \text{ million}", "8000000"],
    ],
}


MIXED = [
    *("2, 3", "(2, 3)", "(3, 2)", r"\{3, 2\}", "3, 2", r"2 \text{ and } 3"),
    *("50", r"50\%", "0.5", r"\frac{1}{2}", r"50 \text{ cents}", r"\$0.50", "50 cm"),
    *("3:4", r"\frac{3}{4}", "0.75", r"75\%", "75"),
    *(r"60^\circ", "60", r"\frac{\pi}{3}", "x = 60", r"60 \text{ minutes}", "1 hour", "1"),
    *(r"\text{(C)}", "C", "C. 60", r"12^{\text{th}}", "12", r"12 \pmod{7}", "12_3"),
]
"""Spellings of which some equal several others that differ."""


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    with Grader(num_workers=1, limit_s=20.0) as grader:
        yield grader


def partition(answers: Sequence[str], grader: Grader) -> set[frozenset[str]]:
    """Classes of answers that are spelled differently."""
    votes = [Vote(answer, False) for answer in answers]
    members: defaultdict[int | None, set[str]] = defaultdict(set)
    for answer, number in zip(answers, group_votes(votes, grader.same), strict=True):
        members[number].add(answer)
    return {frozenset(one) for one in members.values()}


@pytest.mark.parametrize("name", CLASSES)
def test_classes_do_not_depend_on_the_order_of_samples(grader: Grader, name: str) -> None:
    expected = {frozenset(one) for one in CLASSES[name]}
    answers = [answer for one in CLASSES[name] for answer in one]
    chance = random.Random(name)
    for _ in range(6):
        chance.shuffle(answers)
        repeated = [*answers, *chance.choices(answers, k=4)]
        assert partition(repeated, grader) == expected, repeated


def test_all_kinds_at_once(grader: Grader) -> None:
    """Bare numbers stay out of the way: only kinds whose values differ are put together."""
    names = ("numbers", "lists", "intervals", "expressions")
    answers = [answer for name in names for one in CLASSES[name] for answer in one]
    expected = {frozenset(one) for name in names for one in CLASSES[name]}
    chance = random.Random(0)
    for _ in range(3):
        chance.shuffle(answers)
        assert partition(answers, grader) == expected, answers


def test_a_bare_value_between_two_classes_does_not_depend_on_the_order(grader: Grader) -> None:
    answers = list(MIXED)
    expected = partition(answers, grader)
    chance = random.Random(0)
    for _ in range(10):
        chance.shuffle(answers)
        assert partition(answers, grader) == expected, answers


@pytest.mark.parametrize("name", CLASSES)
def test_comparison_does_not_depend_on_the_side(grader: Grader, name: str) -> None:
    answers = [answer for one in CLASSES[name] for answer in one]
    chance = random.Random(name)
    for _ in range(20):
        one, other = chance.choices(answers, k=2)
        assert grader.same(one, other) == grader.same(other, one), (one, other)
