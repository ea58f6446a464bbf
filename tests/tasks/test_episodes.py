"""Rewards of conversations: by the environment, by the task, and after a failure."""

from __future__ import annotations

import pytest

from reasontrain.data.environment import (
    CalculatorEnvironment,
    EnvironmentSettings,
    OnError,
    PythonEnvironment,
)
from reasontrain.tasks import Arithmetic, Grader, Response, Scored, grade_episodes
from reasontrain.types import Episode, Problem, RunError


def scored(environment: EnvironmentSettings | None, *episodes: Episode) -> list[Scored]:
    """Two of three answers are right."""
    problem = Problem(id="p", prompt="2+3?", answer="5")
    texts = ("The answer is 5.", "The answer is 6.", "The answer is 5.")
    responses = [
        Response(problem=problem, text=text, episode=episode)
        for text, episode in zip(texts, episodes, strict=True)
    ]
    with Grader() as grader:
        return grade_episodes(Arithmetic(), responses, grader, environment, answer_format="marked")


def own(reward: str, on_error: OnError = "drop") -> PythonEnvironment:
    return PythonEnvironment(path="o.py", name="O", reward=reward, on_error=on_error)  # type: ignore[arg-type]


EPISODES = (
    Episode(num_turns=1, reward=0.25),
    Episode(num_turns=1, reward=1.5),
    Episode(num_turns=1, failure="timeout"),
)


@pytest.mark.parametrize(("on_error", "last"), [("drop", None), ("zero", 0.0)])
def test_an_environment_rewards_in_place_of_the_task(on_error: OnError, last: float | None) -> None:
    results = scored(own("environment", on_error), *EPISODES)
    assert [r.reward for r in results] == [0.25, 1.5, last]
    assert [r.verdict.correct for r in results] == [False, True, False]
    assert [r.failure for r in results] == [None, None, "timeout"]


def test_the_task_grades_what_did_not_fail() -> None:
    assert [r.reward for r in scored(own("task"), *EPISODES)] == [1.0, 0.0, None]
    no_rewards = [Episode(num_turns=2)] * 3
    assert [r.reward for r in scored(CalculatorEnvironment(), *no_rewards)] == [1.0, 0.0, 1.0]
    assert [r.reward for r in scored(own("environment"), *no_rewards)] == [0.0, 0.0, 0.0]


def test_a_sampler_that_ran_no_environment_ends_the_run() -> None:
    """An engine of a plug-in may not know `sampling.environment`; the task must not grade then."""
    response = Response(problem=Problem(id="p", prompt="?", answer="5"), text="5")
    with Grader() as grader, pytest.raises(RunError, match="problem p is no conversation"):
        grade_episodes(Arithmetic(), [response], grader, own("task"), answer_format="marked")
