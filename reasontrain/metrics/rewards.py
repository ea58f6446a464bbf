"""Metrics of rewards: groups that give no signal, and what an own reward function returned."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

from reasontrain.types import Rollout, Stats

ZERO_STD = "reward_zero_std_share"
"""The share of groups whose rewards are equal; absent without any reward."""
EQUAL = 1e-9
"""Relative difference below which rewards are equal: larger ones are no rounding."""


def group_numbers(rollouts: Sequence[Rollout]) -> Stats:
    """The share of groups whose rewards are equal, from which advantages of 0 follow."""
    rewards_G = defaultdict[int, list[float]](list)
    for rollout in rollouts:
        if rollout.reward is not None:
            rewards_G[rollout.group].append(rollout.reward)
    if not rewards_G:
        return {}
    equal = [math.isclose(min(of), max(of), rel_tol=EQUAL) for of in rewards_G.values()]
    return {ZERO_STD: sum(equal) / len(equal)}


def reward_mean(rollouts: Sequence[Rollout]) -> Stats:
    """The mean reward of the rollouts that have one; nothing if none has."""
    rewards = [rollout.reward for rollout in rollouts if rollout.reward is not None]
    return {"reward_mean": sum(rewards) / len(rewards)} if rewards else {}


def own_reward_numbers(rollouts: Sequence[Rollout]) -> Stats:
    """Numbers of rollouts without a reward, of calls that failed, and of those that timed out."""
    failures = [rollout.reward_failure for rollout in rollouts]
    return {
        "rewards_missing": float(sum(rollout.reward is None for rollout in rollouts)),
        "reward_errors": float(sum(failure is not None for failure in failures)),
        "reward_timeouts": float(failures.count("timeout")),
    }


def part_numbers(rollouts: Sequence[Rollout]) -> Stats:
    """The mean of each number beside the reward, over the rollouts that have it.

    They are those that an own reward function returned, and the penalty of long responses.
    """
    parts = defaultdict[str, list[float]](list)
    for rollout in rollouts:
        for name, value in rollout.reward_parts.items():
            parts[name].append(value)
    return {f"reward/{name}": sum(of) / len(of) for name, of in sorted(parts.items())}
