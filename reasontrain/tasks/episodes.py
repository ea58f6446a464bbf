"""Grading of conversations with an environment: by the environment, or by the task."""

from __future__ import annotations

from collections.abc import Sequence

from reasontrain.data.environment import EnvironmentSettings
from reasontrain.tasks.grading import AnswerFormat, Grader, Verdict
from reasontrain.tasks.reward import Reward
from reasontrain.tasks.task import Response, Scored, Task
from reasontrain.types import Episode, RunError


def grade_episodes(
    task: Task,
    responses: Sequence[Response],
    grader: Grader,
    environment: EnvironmentSettings | None,
    reward: Reward | None = None,
    *,
    answer_format: AnswerFormat,
) -> list[Scored]:
    """Grade responses that an environment may have answered between their turns.

    A conversation whose environment failed has no reward, or the reward 0, as `on_error` says.

    Args:
        task: grades responses without an environment, or with one that gives no reward.
        responses: the responses.
        grader: the common verifier.
        environment: the settings of the environment; None if there was none.
        reward: the rewards of verdicts.
        answer_format: what counts as an answer.

    Returns:
        Reward and verdict of each response, in order. One that the environment rewarded is right if
        its reward is at least 1.

    Raises:
        RunError: the task's own reward function fails, or a response had no conversation.
    """
    if environment is None:
        return task.grade(responses, grader, reward, answer_format=answer_format)
    scored: dict[int, Scored] = {}
    for index, response in enumerate(responses):
        if response.episode is None:
            raise RunError(
                f"the response to {response.problem.label} is no conversation with the environment "
                f"{environment.kind!r}; the `sample` of an engine of yours must pass "
                "`sampling.environment` on to `sample_episodes` of reasontrain.sampler.episodes"
            )
        if environment.gives_reward or response.episode.failure is not None:
            scored[index] = _scored(response.episode, environment)
    others = [index for index in range(len(responses)) if index not in scored]
    if others:
        graded = task.grade(
            [responses[index] for index in others], grader, reward, answer_format=answer_format
        )
        scored |= dict(zip(others, graded, strict=True))
    return [scored[index] for index in range(len(responses))]


def _scored(episode: Episode, environment: EnvironmentSettings) -> Scored:
    """The reward that an environment gave."""
    if episode.failure is not None:
        reward = 0.0 if environment.on_error == "zero" else None
        return Scored(reward, Verdict(False, "", episode.failure), failure=episode.failure)
    reward = episode.reward or 0.0
    return Scored(reward, Verdict(reward >= 1.0, "", "environment"))
