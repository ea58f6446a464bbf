"""The verifier as reward: 1 for a right answer, 0 for a wrong one, in order."""

from __future__ import annotations

import pytest

from reasontrain.tasks import Arithmetic, Response, Reward, Scored, Verdict
from reasontrain.tasks.grading import Grader
from reasontrain.types import Problem


def test_rewards_of_the_verifier() -> None:
    problem = Problem(id="a", prompt="1+1?", answer="2")
    with Grader(num_workers=1) as grader:
        scored = Arithmetic().grade(
            [
                Response(problem=problem, text=text)
                for text in (r"\boxed{3}", "The answer is 2.", "")
            ],
            grader,
        )
    assert scored == [
        Scored(0.0, Verdict(False, "3", "exact")),
        Scored(1.0, Verdict(True, "2", "exact")),
        Scored(0.0, Verdict(False, "", "no answer")),
    ]


def test_a_wrong_answer_in_a_box_may_be_worth_something() -> None:
    """Soft Tokens, eq. 11 (number 7 of the method's list of tests): 100, 10 and 0 for right, boxed
    and unparsable.
    """
    problem = Problem(id="a", prompt="1+1?", answer="2")
    texts = [
        r"\boxed{2}",
        r"The answer is \boxed{3}",
        r"\boxed{3",
        "The answer is 3.",
        "",
        r"\boxed{}",
        "The answer is 2.",
    ]
    worth = Reward(right=100.0, boxed=10.0, wrong=0.0)
    with Grader(num_workers=1) as grader:
        found = Arithmetic().grade(
            [Response(problem=problem, text=text) for text in texts], grader, worth
        )
    assert [scored.reward for scored in found] == [100.0, 10.0, 0.0, 0.0, 0.0, 0.0, 100.0]


@pytest.mark.parametrize(
    ("reward", "expected"), [(Reward(), 0.0), (Reward(wrong=-1.0), 0.0), (Reward(boxed=-2.0), -2.0)]
)
def test_what_is_not_said_is_worth_nothing(reward: Reward, expected: float) -> None:
    assert reward(Verdict(False, "3", "exact"), r"\boxed{3}") == expected
    assert reward(Verdict(True, "3", "exact"), r"\boxed{3}") == 1.0
