"""The verifier as reward: 1 for a right answer, 0 for a wrong one, in order."""

from __future__ import annotations

from reasontrain.tasks import Arithmetic, Scored, Verdict, score
from reasontrain.tasks.grading import Grader
from reasontrain.types import Problem


def test_rewards_of_the_verifier() -> None:
    problem = Problem(id="a", prompt="1+1?", answer="2")
    with Grader(num_workers=1) as grader:
        scored = score(Arithmetic(), [(problem, r"\boxed{3}"), (problem, "The answer is 2."), (problem, "")], grader)
    assert scored == [
        Scored(0.0, Verdict(False, "3", "exact")),
        Scored(1.0, Verdict(True, "2", "exact")),
        Scored(0.0, Verdict(False, "", "no answer")),
    ]
