"""The calculator: what it answers, and what it refuses."""

from __future__ import annotations

import pytest

from reasontrain.environments.calculator import Calculator, answer, other_numbers


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("37*46", "=1702"),
        (" ( 1 + 2 ) * -3 ", "=-9"),
        ("7-10", "=-3"),
        ("0.1+0.2", "=0.3"),
        ("10/4", "=2.5"),
        ("1/3", "=0.333333"),
        ("-2/3", "=-0.666667"),
        ("1/10000000", "=0"),
        ("2-0.0000001", "=2"),
    ],
)
def test_calculations_have_exact_values(expression: str, expected: str) -> None:
    assert answer(expression) == expected


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "2**9",
        "7//2",
        "1/0",
        "(1+2",
        "007",
        "1,000+1",
        "1e5",
        "x+1",
        "__import__('os')",
        "9" * 31,
        "9" * 201,
        "(" * 100 + ")" * 100,
        "1\n2",
    ],
)
def test_anything_else_is_an_error(expression: str) -> None:
    assert answer(expression) == "=error"


def test_the_call_is_the_last_brackets_of_a_turn_and_a_turn_without_one_is_the_last() -> None:
    calculator = Calculator()
    assert calculator.step("First, 2*3=<<9*9>>") == ("=81", None, False)
    assert calculator.step("<<1+1 then <<2+2>>") == ("=4", None, False)
    assert calculator.step("no call>>") == ("=error", None, False)
    assert calculator.step("The answer is 81.") == (None, None, True)
    assert calculator.step("<<9*9>>=81, so 81") == (None, None, True)


def test_shuffled_answers_are_of_other_numbers_with_as_many_digits() -> None:
    expressions = [f"{left}*{right}" for left in range(11, 61) for right in (7, 46)]
    others = [other_numbers(expression) for expression in expressions]
    assert others == [other_numbers(expression) for expression in expressions]
    assert [len(other) for other in others] == [len(expression) for expression in expressions]
    shuffled = Calculator(shuffled=True)
    answers = [shuffled.step(f"<<{expression}>>")[0] for expression in expressions]
    right = [answer(expression) for expression in expressions]
    assert sum(map(str.__eq__, map(str, answers), right)) <= 2
