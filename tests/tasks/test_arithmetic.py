"""Arithmetic problems are right, small, reproducible, and held out where they say so."""

from __future__ import annotations

import ast
import random
import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis.strategies import integers, sampled_from

from reasontrain.tasks.arithmetic import Arithmetic, ReasoningStep, is_held_out
from reasontrain.types import Problem, UserError

_OPERATIONS = {ast.Add: int.__add__, ast.Sub: int.__sub__, ast.Mult: int.__mul__}
_SIGNS = {"+": ast.Add, "-": ast.Sub, "*": ast.Mult}
_LINE = re.compile(r"^.*?(\d+)([-+*])(\d+)=(\d+)$")
_EVENTS = {"finds": "+", "gets": "+", "loses": "-", "gives": "-", "Now": "*", "The": "*"}


def work_out(text: str) -> tuple[int, list[int]]:
    """An expression's value and every value in it, by Python's own parser."""
    seen: list[int] = []

    def value(node: ast.expr) -> int:
        if isinstance(node, ast.BinOp):
            seen.append(_OPERATIONS[type(node.op)](value(node.left), value(node.right)))
        else:
            assert isinstance(node, ast.Constant)
            assert isinstance(node.value, int)
            seen.append(node.value)
        return seen[-1]

    return value(ast.parse(text, mode="eval").body), seen


def expression_of(problem: Problem) -> str:
    """The prompt's calculation, read from its text alone."""
    assert isinstance(problem.prompt, str)
    if problem.about["form"] == "expression":
        found = re.search(r"[\d(][\d()+*-]*", problem.prompt)
        assert found
        return found.group()
    first, *events, question = problem.prompt.split(". ")
    assert question.startswith("How many")
    text = re.findall(r"\d+", first)[0]
    for event in events:
        words = [word for word in event.split() if word in _EVENTS]
        text = f"({text}){_EVENTS[words[0]]}{re.findall(r'[0-9]+', event)[0]}"
    return text


def chain(problem: Problem) -> list[tuple[int, str, int, int]]:
    """The steps that a demonstration writes down."""
    thought = problem.solution.removeprefix("<think>\n").split("\n</think>\n\n")[0]
    found = [_LINE.match(line) for line in thought.split("\n")]
    return [(int(m[1]), m[2], int(m[3]), int(m[4])) for m in found if m]


def is_right(step: tuple[int, str, int, int]) -> bool:
    left, op, right, result = step
    return _OPERATIONS[_SIGNS[op]](left, right) == result


@settings(max_examples=200, deadline=None)
@given(seed=integers(0, 10_000), depth=integers(1, 8), split=sampled_from(["train", "test"]))
def test_answers_are_right_and_values_lie_in_0_to_99(seed: int, depth: int, split: str) -> None:
    problem = Arithmetic(split=split, seed=seed, min_depth=depth, max_depth=depth).problem(seed)
    value, seen = work_out(expression_of(problem))
    assert problem.answer == str(value)
    assert min(seen) >= 0
    assert max(seen) <= 99
    assert len(seen) == 2 * depth + 1
    assert problem.about["depth"] == str(depth)
    steps = chain(problem)
    assert len(steps) == depth
    assert all(map(is_right, steps))
    assert problem.solution.endswith(f"{value}\n</think>\n\nThe answer is \\boxed{{{value}}}.")


def test_splits_share_no_calculation() -> None:
    train, test = (
        {
            work_key(p)
            for p in Arithmetic(split=split, num_problems=number, max_depth=2, seed=0).problems()
        }
        for split, number in (("train", 1000), ("test", 200))
    )
    assert len(train) > 500
    assert len(test) > 50
    assert not train & test


def work_key(problem: Problem) -> str:
    """A calculation up to the order of sums and products, written unlike the package's."""

    def key(node: ast.expr) -> str:
        if not isinstance(node, ast.BinOp):
            return ast.unparse(node)
        sides = [key(node.left), key(node.right)]
        return (
            f"[{type(node.op).__name__} "
            f"{' '.join(sides if isinstance(node.op, ast.Sub) else sorted(sides))}]"
        )

    return key(ast.parse(expression_of(problem), mode="eval").body)


def test_one_in_ten_calculations_is_held_out() -> None:
    """4,000 draws of share 0.1: standard deviation 0.0047, so 0.02 is 4.2 of them."""
    rng = random.Random(0)
    draws = [
        [
            ReasoningStep(rng.randrange(100), "+", rng.randrange(100)),
            ReasoningStep(-1, "-", rng.randrange(100)),
        ]
        for _ in range(4000)
    ]
    assert abs(sum(map(is_held_out, draws)) / 4000 - 0.1) < 0.02


def test_order_of_a_sum_does_not_change_the_split() -> None:
    for right in range(100):
        assert is_held_out([ReasoningStep(7, "+", right)]) == is_held_out(
            [ReasoningStep(right, "+", 7)]
        )
    assert any(
        is_held_out([ReasoningStep(70, "-", right)]) != is_held_out([ReasoningStep(right, "-", 70)])
        for right in range(100)
    )


def test_golden_problem() -> None:
    """The text of a seed is fixed: shipped weights and stored results rest on it."""
    assert Arithmetic().problem(1) == Problem(
        id="arithmetic/train/0/1",
        prompt="What is 42+(7+45)?",
        answer="94",
        solution="<think>\nTo start, 7+45=52\nThen "
        "42+52=94\n</think>\n\nThe answer is \\boxed{94}.",
        about={"depth": "2", "form": "expression"},
    )


def test_a_larger_set_continues_a_smaller_one_and_a_seed_changes_it() -> None:
    small, large = Arithmetic(num_problems=20).problems(), Arithmetic(num_problems=30).problems()
    assert list(small) == large[:20]
    assert small[-1] == large[19]
    assert (len(small), len(large)) == (20, 30)
    assert len({p.id for p in large}) == 30
    assert not {p.prompt for p in small} & {
        p.prompt for p in Arithmetic(num_problems=20, seed=1).problems()
    }


def test_half_are_stories_and_depths_are_even() -> None:
    """1,000 draws: a share of 1/2 has standard deviation 0.016, one of 1/5 has 0.013."""
    abouts = [problem.about for problem in Arithmetic(num_problems=1000).problems()]
    assert abs(sum(about["form"] == "story" for about in abouts) / 1000 - 0.5) < 0.05
    for depth in "12345":
        assert abs(sum(about["depth"] == depth for about in abouts) / 1000 - 0.2) < 0.04


@pytest.mark.parametrize("systematic", [False, True])
def test_wrong_steps_change_demonstrations_at_their_rate_and_nothing_else(systematic: bool) -> None:
    """About 3,000 steps of share 0.25: standard deviation 0.008.

    Up to 0.02 of the errors would leave 0..99 and are not made; of systematic ones (a few thousand
    facts, unequally frequent, one candidate each) more.
    """
    right = Arithmetic(num_problems=1000).problems()
    wrong = Arithmetic(num_problems=1000, wrong_steps=0.25, systematic=systematic).problems()
    assert [(p.prompt, p.answer, p.about) for p in wrong] == [
        (p.prompt, p.answer, p.about) for p in right
    ]
    steps = [step for problem in wrong for step in chain(problem)]
    rate = sum(not is_right(step) for step in steps) / len(steps)
    assert (0.18 < rate < 0.27) if systematic else (0.23 < rate < 0.27)
    assert all(
        0 <= number <= 99 for left, _, value, result in steps for number in (left, value, result)
    )
    for problem in wrong:
        *before, last = chain(problem)
        assert problem.solution.endswith(f"The answer is \\boxed{{{last[3]}}}.")
        if all(map(is_right, before)):  # then the answer is right exactly where the last step is
            assert is_right(last) == (str(last[3]) == problem.answer)


def test_random_errors_spread_and_systematic_ones_repeat() -> None:
    for systematic in (False, True):
        task = Arithmetic(num_problems=1000, max_depth=1, wrong_steps=0.5, systematic=systematic)
        results: dict[tuple[int, str, int], set[int]] = {}
        for left, op, right, result in (
            step for problem in task.problems() for step in chain(problem)
        ):
            results.setdefault((left, op, right), set()).add(result)
        most = max(map(len, results.values()))
        assert most == 1 if systematic else most > 3


def test_every_step_wrong() -> None:
    """Enough problems for a draw that once in a hundred hits the right value to be seen."""
    problems = Arithmetic(wrong_steps=1.0, min_depth=1, max_depth=1, num_problems=1000).problems()
    assert [problem.id for problem in problems if is_right(chain(problem)[0])] == []


def test_depths_that_are_no_range() -> None:
    with pytest.raises(UserError, match="they are 4 and 3"):
        Arithmetic(min_depth=4, max_depth=3)


def test_numbers_of_two_digits_have_a_product_beyond_mental_arithmetic() -> None:
    task = Arithmetic(numbers="two_digit", max_depth=2, num_problems=60)
    for problem in task.problems():
        answer, values = work_out(expression_of(problem))
        steps = chain(problem)
        assert (str(answer), steps[-1][3]) == (problem.answer, answer)
        assert all(0 <= value <= 9999 for value in values)
        assert any(op == "*" and min(left, right) > 9 for left, op, right, _ in steps)
        numbers = [int(text) for text in re.findall(r"\d+", expression_of(problem))]
        assert all(11 <= number <= 99 for number in numbers)


def test_a_share_of_the_steps_calls_the_calculator_and_nothing_else_changes() -> None:
    plain = Arithmetic(numbers="two_digit", max_depth=2, num_problems=200)
    calling = replace(plain, tool_calls=0.25)
    num_calls = 0
    for one, other in zip(plain.problems(), calling.problems(), strict=True):
        num_calls += other.solution.count("<<")
        assert re.sub(r"<<([\d+*-]+)>>", r"\1", other.solution) == one.solution
        assert (one.prompt, one.answer) == (other.prompt, other.answer)
    num_steps = sum(len(chain(problem)) for problem in plain.problems())
    assert 0.15 < num_calls / num_steps < 0.35
