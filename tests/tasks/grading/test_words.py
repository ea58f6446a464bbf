"""Texts, choices with and without their content, and words before a value."""

from __future__ import annotations

import pytest

from reasontrain.tasks.grading.exact import compare
from reasontrain.tasks.grading.normalise import normalise
from reasontrain.tasks.grading.words import nouns_in

EQUAL = [
    ("C", "(C) 60"),
    ("C", "C. 60"),
    ("C", "C) 60"),
    ("60", "C. 60"),
    ("B", r"\textbf{(B)}\ 12"),
    ("12", r"\textbf{(B)}\ 12"),
    (r"\text{(C)}", r"\text{Option C}"),
    ("C", "choice (C)"),
    (r"\text{(C) Plane}", "C"),
    ("AC", "A, C"),
    ("A, C", "C and A"),
    (r"\text{A,B,D}", "ABD"),
    (r"\text{ellipse}", r"\text{an ellipse}"),
    (r"\text{True}", "true"),
    ("odd $n$", "odd $n$"),
    (r"\text{Jim and Kate}", "Kate and Jim"),
    ("1 : 2", "1 : 2"),
    (r"\text{Monday}", "Monday."),
    ("5", r"\text{The answer is } 5"),
    ("5", r"\text{So the area is: } 5"),
]
DIFFERENT = [
    ("C", "C, D"),
    ("A", r"\text{(A) } 3, \text{(B) } 4"),
    ("A", r"\text{A) 3 B) 4}"),
    ("D", r"\textbf{(B)}\ 12"),
    ("13", r"\textbf{(B)}\ 12"),
    ("AC", "A, B"),
    ("AC", "A"),
    ("C", "c"),
    (r"\text{Jim and Kate}", "Jim"),
    (r"\text{ellipse}", r"\text{a circle}"),
    (r"\text{odd}", r"\text{not odd}"),
    ("5", r"\text{The answer is not } 5"),
    ("5", r"\text{at least } 5"),
    ("5", r"\text{twice } 5"),
    ("5", r"\text{Half of the answer is } 5"),
    ("5", r"\text{minus } 5"),
]


@pytest.mark.parametrize(("gold", "answer"), EQUAL)
def test_equal(gold: str, answer: str) -> None:
    assert compare(normalise(gold), normalise(answer), {})[:2] == (True, [])


@pytest.mark.parametrize(("gold", "answer"), DIFFERENT)
def test_different(gold: str, answer: str) -> None:
    assert not compare(normalise(gold), normalise(answer), {}).equal


def test_only_words_that_the_answers_may_contain_count() -> None:
    problem = "How many apples are in the 3 baskets, or more?"
    assert nouns_in(problem, "5", "5 apple") == {"apples"}
    assert nouns_in(problem, "5", "5 or more in baskets") == {"baskets"}
    assert nouns_in(problem, "5", r"\frac{1}{2}") == frozenset()
