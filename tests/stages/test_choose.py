"""The choice among a problem's solutions, by hand."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given
from hypothesis.strategies import booleans, integers, lists, sampled_from, tuples

from reasontrain.stages.choose import Attempt, Choice, choose


def trials(text: str) -> list[Attempt]:
    """`+a` is right with answer a, `-b` wrong with answer b; `+` and `-` have no answer."""
    return [Attempt(word[1:], word[0] == "+") for word in text.split()]


def choice(text: str, *, cover: float = 0.5, seed: int = 0) -> Choice:
    return choose(trials(text), random.Random(seed), cover=cover)


def test_the_largest_groups_are_taken_until_half_of_the_wrong_ones_are_covered() -> None:
    """Wrong groups c (4), d (3), e (2), f (1) of ten: c covers 4, d makes it 7 of 10: the end."""
    found = choice("-c -d +a -e -c -f -d +a +b -c -e -d -c")
    assert found.positive in {2, 7}  # of the two a, not the b
    first, second = found.negatives
    assert (first in {0, 4, 9, 12}, second in {1, 6, 11}) == (True, True)


def test_cover_says_how_far() -> None:
    text = "-c -c -c -d -d -e -e"
    assert [
        len(choice(text, cover=cover).negatives) for cover in (0.4, 3 / 7, 0.5, 5 / 7, 0.9, 1.0)
    ] == [1, 1, 2, 2, 3, 3]


def test_after_the_first_group_singletons_are_not_used() -> None:
    assert choice("-c -d -e").negatives == (0,)
    assert len(choice("-c -c -d -e -f -g", cover=1.0).negatives) == 1


def test_solutions_without_an_answer_do_not_count() -> None:
    """Two of four wrong ones have an answer, and c alone is half of these."""
    assert choice("- - -c -d + +a") == Choice(5, (2,))
    assert choice("- +") == Choice(None, ())
    assert choice("") == Choice(None, ())


def test_groups_of_one_size_go_by_their_first_solution() -> None:
    assert choice("-d -c -c -d", cover=0.1).negatives[0] in {0, 3}


def test_members_are_drawn_at_random_and_repeatably() -> None:
    text = "+a +a +a +a -c -c -c"
    assert len({choice(text, seed=seed).positive for seed in range(40)}) == 4
    assert len({choice(text, seed=seed).negatives for seed in range(40)}) == 3
    assert choice(text, seed=5) == choice(text, seed=5)


@given(
    words=lists(tuples(booleans(), sampled_from(["", "a", "b", "c", "d"])), max_size=30),
    seed=integers(0, 1000),
)
def test_whatever_was_sampled_the_groups_are_the_largest(
    words: list[tuple[bool, str]], seed: int
) -> None:
    some = [Attempt(answer, correct and answer in "ab") for correct, answer in words]
    found = choose(some, random.Random(seed))
    for correct, indices in (
        (True, [found.positive] if found.positive is not None else []),
        (False, [*found.negatives]),
    ):
        sizes = Counter(t.answer for t in some if t.answer and t.correct is correct)
        chosen = [sizes[some[i].answer] for i in indices]
        assert chosen == sorted(sizes.values(), reverse=True)[: len(chosen)]
        assert all(some[i].correct is correct for i in indices)
        assert len({some[i].answer for i in indices}) == len(indices)
        assert bool(indices) == bool(sizes)
