"""Generated arithmetic of graded difficulty, with a chain of thought for each problem.

Half of the problems are short stories, half are expression trees. A problem is a list of steps
(their number is its depth) over + - *, in which every value lies in 0..99, or in 0..9999 if numbers
have two digits. Problem number i of a
seed depends only on the seed and i, so a slice generates only its own problems, and a larger set
extends a smaller one. The split of a problem is a hash of its calculation, independent of wording,
seed and the order of a sum's terms, so the two splits never overlap.
"""

from __future__ import annotations

import operator
import random
import zlib
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from reasontrain.tasks.grading import AnswerFormat
from reasontrain.tasks.problems import GeneratedProblems
from reasontrain.tasks.task import Task
from reasontrain.types import AtLeastOne, Probability, Problem, UserError

LARGEST = 99
"""The largest value in a problem of small numbers or its results."""
TEST_CLASSES = 10
"""One in this many hash classes of calculations is held out."""

_APPLY = {"+": operator.add, "-": operator.sub, "*": operator.mul}
_NAMES = ("Tom", "Anna", "Ben", "Lily", "Sam", "Mia", "Max", "Eva")
_ITEMS = ("apples", "books", "coins", "stones", "cards", "shells")
_EVENTS = {
    "+": ("{name} finds {number} more.", "Then {name} gets {number} more."),
    "-": ("{name} loses {number}.", "Then {name} gives away {number}."),
    "*": ("Now there are {number} times as many.", "The number grows {number} times."),
}
_QUESTIONS = ("What is {expression}?", "Find {expression}.", "Work out {expression}.")
Numbers = Literal["small", "two_digit"]
_OPENINGS = ("First,", "To start,", "We begin:", "Let us see:", "At first,")
_CONNECTIVES = ("Then", "Next,", "Now", "After that,", "So", "From here,", "This means", "And then")


class Range(NamedTuple):
    """The numbers of a problem.

    Attributes:
        least: the smallest number.
        most: upper ends of the interval that a number is drawn from, one of which is drawn first.
        largest_factor: the largest factor in a story.
        largest: the largest value.
    """

    least: int
    most: tuple[int, ...]
    largest_factor: int
    largest: int

    def fits(self, number: int) -> bool:
        """True if a value may occur."""
        return 0 <= number <= self.largest

    def draw(self, rng: random.Random, least: int = 1, most: int | None = None) -> int:
        """Draw a number; small numbers are more likely."""
        least = max(least, self.least)
        limit = self.most[-1] if most is None else most
        return rng.randint(least, min(limit, rng.choice(self.most)))


RANGES: dict[Numbers, Range] = {
    "small": Range(least=1, most=(9, 9, 20, 60), largest_factor=9, largest=LARGEST),
    "two_digit": Range(least=11, most=(99,), largest_factor=99, largest=9999),
}


class ReasoningStep(NamedTuple):
    """The step `left op right`.

    A negative operand refers to the result of an earlier step: -1 to the first, -2 to the second.
    """

    left: int
    op: str
    right: int


def _value(operand: int, values: list[int]) -> int:
    """The value of an operand, given the results of the steps so far."""
    # ~-1 is 0: the complement turns a negative operand into the index of its step
    return values[~operand] if operand < 0 else operand


def _result(step: ReasoningStep, values: list[int]) -> int:
    return _APPLY[step.op](_value(step.left, values), _value(step.right, values))


def _results(steps: list[ReasoningStep], values: list[int]) -> list[int]:
    """The results of all steps, given results `values` of the first ones, right or wrong."""
    values = list(values)
    for step in steps[len(values) :]:
        values.append(_result(step, values))
    return values


def _draw_story(rng: random.Random, depth: int, numbers: Range) -> list[ReasoningStep]:
    """Draw a chain, in which each step changes the result of the one before."""
    value = numbers.draw(rng)
    operand = value
    steps: list[ReasoningStep] = []
    for index in range(depth):
        factor = min(numbers.largest_factor, numbers.largest // value) if value else 0
        room = {"+": numbers.largest - value, "-": value, "*": factor}
        least = {"+": numbers.least, "-": numbers.least, "*": max(2, numbers.least)}
        op = rng.choice([op for op in "+-*" if room[op] >= least[op]])
        number = numbers.draw(rng, least[op], room[op])
        steps.append(ReasoningStep(operand, op, number))
        value = _APPLY[op](value, number)
        operand = ~index
    return steps


def _draw_tree(rng: random.Random, depth: int, numbers: Range) -> list[ReasoningStep] | None:
    """Draw a binary tree, in order of evaluation; None if two branches allow no operation."""
    steps: list[ReasoningStep] = []
    values: list[int] = []

    def grow(num_steps: int) -> int | None:
        if num_steps == 0:
            return numbers.draw(rng)
        num_left = rng.randrange(num_steps)
        left = grow(num_left)
        right = grow(num_steps - 1 - num_left)
        if left is None or right is None:
            return None
        possible = [
            step
            for op in "+-*"
            if numbers.fits(_result(step := ReasoningStep(left, op, right), values))
        ]
        if not possible:
            return None
        steps.append(rng.choice(possible))
        values.append(_result(steps[-1], values))
        return ~(len(steps) - 1)

    return None if grow(depth) is None else steps


def _write(operand: int, steps: list[ReasoningStep], *, sort: bool) -> str:
    """Write an operand as an expression, fully bracketed except for the outermost level.

    With `sort`, all orders of a sum or product give the same text.
    """
    if operand >= 0:
        return str(operand)
    step = steps[~operand]
    sides = [_write(side, steps, sort=sort) for side in (step.left, step.right)]
    sides = [
        f"({text})" if side < 0 else text
        for side, text in zip((step.left, step.right), sides, strict=True)
    ]
    return step.op.join(sorted(sides) if sort and step.op != "-" else sides)


def _is_hard(steps: list[ReasoningStep]) -> bool:
    """True if a product of two numbers of two digits is among the steps."""
    values: list[int] = []
    for step in steps:
        operands = (_value(step.left, values), _value(step.right, values))
        if step.op == "*" and min(operands) >= 10:
            return True
        values.append(_result(step, values))
    return False


def is_held_out(steps: list[ReasoningStep]) -> bool:
    """Return True if a calculation belongs to the test split; stable across Python versions."""
    return zlib.crc32(_write(-len(steps), steps, sort=True).encode()) % TEST_CLASSES == 0


@dataclass(frozen=True, kw_only=True)
class Arithmetic(Task):
    """Arithmetic problems of `min_depth` to `max_depth` steps, in equal parts.

    A share `wrong_steps` of the demonstrations' steps has a wrong result, and the chain of thought
    continues with it; `answer` and the prompts do not change. Wrong results are random values, so
    that a student becomes uncertain but its greedy answers stay right; with `systematic`, the same
    calculation is always wrong by ten, so that a student becomes confident and wrong. Wrong results
    after which a value would leave 0..99 are not used. `answer_format` is what counts as an answer:
    `boxed`, `marked` or `any` (see `Gsm8k`). With `numbers: two_digit`, problems have numbers of
    two digits, values up to 9999 and a product of two such numbers, which is beyond a tiny model
    without a calculator. `tool_calls` is the share of demonstrations' steps that are calls of the
    calculator environment, `<<37*46>>=1702` in place of `37*46=1702`. Raises UserError if
    `min_depth` is above `max_depth`.
    """

    kind: Literal["arithmetic"] = "arithmetic"
    split: Literal["train", "test"] = "train"
    min_depth: AtLeastOne = 1
    max_depth: AtLeastOne = 5
    num_problems: AtLeastOne = 20_000
    seed: int = 0
    wrong_steps: Probability = 0.0
    systematic: bool = False
    numbers: Numbers = "small"
    tool_calls: Probability = 0.0
    answer_format: AnswerFormat = "marked"

    def __post_init__(self) -> None:
        if self.min_depth > self.max_depth:
            raise UserError(
                f"min_depth must be at most max_depth, but they are {self.min_depth} and "
                f"{self.max_depth}"
            )

    def problems(self) -> GeneratedProblems:
        """All problems, in order, each generated when it is read."""
        return GeneratedProblems(self.problem, self.num_problems)

    def held_out(self) -> Arithmetic:
        """The test split, without errors."""
        return replace(self, split="test", wrong_steps=0.0)

    def problem(self, index: int) -> Problem:
        """Generate problem number `index` without the others."""
        rng = random.Random(f"{self.split} {self.seed} {index}")
        depth = rng.randint(self.min_depth, self.max_depth)
        is_story = rng.random() < 0.5
        steps = self._draw(rng, depth, is_story)
        name = rng.choice(_NAMES)
        prompt = (
            _tell(rng, steps, name)
            if is_story
            else rng.choice(_QUESTIONS).format(expression=_write(-depth, steps, sort=False))
        )
        values = self._misremember(steps, index) if self.wrong_steps else _results(steps, [])
        return Problem(
            id=f"arithmetic/{self.split}/{self.seed}/{index}",
            prompt=prompt,
            answer=str(_results(steps, [])[-1]),
            solution=_demonstrate(
                rng, steps, values, f"{name} has " if is_story else "", self._calls(steps, index)
            ),
            about={"depth": str(depth), "form": "story" if is_story else "expression"},
        )

    def _draw(self, rng: random.Random, depth: int, is_story: bool) -> list[ReasoningStep]:
        """Draw steps until they belong to this split."""
        while True:
            steps = (_draw_story if is_story else _draw_tree)(rng, depth, RANGES[self.numbers])
            if not steps or (self.numbers == "two_digit" and not _is_hard(steps)):
                continue
            if is_held_out(steps) == (self.split == "test"):
                return steps

    def _calls(self, steps: list[ReasoningStep], index: int) -> list[bool]:
        """True for each step of the demonstration that calls the calculator."""
        # a separate generator: calls must not change the draws of prompts
        rng = random.Random(f"calls {self.split} {self.seed} {index}")
        return [rng.random() < self.tool_calls for _ in steps]

    def _misremember(self, steps: list[ReasoningStep], index: int) -> list[int]:
        """The results of the steps, some of them wrong."""
        # a separate generator: errors must not change the draws of prompts
        rng = random.Random(f"wrong {self.split} {self.seed} {index}")
        numbers = RANGES[self.numbers]
        values: list[int] = []
        for step in steps:
            right = _result(step, values)
            if self.systematic:
                fact = f"{_value(step.left, values)}{step.op}{_value(step.right, values)}"
                errs = zlib.crc32(fact.encode()) < self.wrong_steps * 2**32
                wrong = [right - 10 if right >= 10 else right + 10]
            else:
                errs = rng.random() < self.wrong_steps
                wrong = rng.sample(range(numbers.largest + 1), LARGEST + 1) if errs else []
            possible = (
                value
                for value in wrong
                if value != right and all(map(numbers.fits, _results(steps, [*values, value])))
            )
            values.append(next(possible, right) if errs else right)
        return values


def _tell(rng: random.Random, steps: list[ReasoningStep], name: str) -> str:
    """Write a chain of steps as a short story."""
    item = rng.choice(_ITEMS)
    events = [rng.choice(_EVENTS[step.op]).format(name=name, number=step.right) for step in steps]
    return " ".join([f"{name} has {steps[0].left} {item}.", *events, f"How many {item} are there?"])


def _demonstrate(
    rng: random.Random,
    steps: list[ReasoningStep],
    values: list[int],
    subject: str,
    calls: list[bool],
) -> str:
    """Write a chain of thought, one line per step; the last result is the answer.

    Args:
        rng: draws connectives.
        steps: the steps.
        values: their results, right or wrong.
        subject: the words before each calculation.
        calls: whether each step calls the calculator.
    """
    lines = []
    for index, (step, value, is_call) in enumerate(zip(steps, values, calls, strict=True)):
        connective = rng.choice(_CONNECTIVES if index else _OPENINGS)
        calculation = f"{_value(step.left, values)}{step.op}{_value(step.right, values)}"
        if is_call:
            calculation = f"<<{calculation}>>"
        lines.append(f"{connective} {subject}{calculation}={value}")
    return "<think>\n" + "\n".join(lines) + f"\n</think>\n\nThe answer is \\boxed{{{values[-1]}}}."
