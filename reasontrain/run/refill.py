"""Dynamic sampling: further prompts in the place of groups that teach nothing."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from reasontrain.metrics.rewards import EQUAL
from reasontrain.types import Rollout, Stats, Truncated


@dataclass(frozen=True, kw_only=True)
class Refilled:
    """The rollouts of a step after its last round.

    Attributes:
        sampled: all that were sampled, with their rewards.
        kept: those of groups whose rewards differ.
        rounds: number of rounds after the first.
        num_groups: number of groups that the step should have.
    """

    sampled: list[Rollout]
    kept: list[Rollout]
    rounds: int
    num_groups: int

    @property
    def metrics(self) -> Stats:
        """The rounds of the step, and the share of its groups that were filled."""
        return {
            "refill_rounds": float(self.rounds),
            "refill_filled_share": num_groups(self.kept) / self.num_groups,
        }


def refill(
    first: Sequence[Rollout],
    sample: Callable[[int, int], list[Rollout]],
    *,
    num: int,
    max_rounds: int,
    truncated: Truncated = "score",
) -> Refilled:
    """Sample until `num` groups have different rewards, in at most `max_rounds` further rounds.

    DAPO, arXiv 2503.14476, section 3.2. A round depends on its number and on how many groups are
    missing, and nothing is carried over to the next step, so a resumed run samples what an
    uninterrupted one does.

    Args:
        first: the rollouts of the step's own prompts, with rewards.
        sample: number of the round, from 1, and number of prompts -> their rollouts with rewards.
        num: number of groups that the step should have.
        max_rounds: most further rounds; groups that are missing then are not replaced.
        truncated: the treatment of truncated rollouts.
    """
    sampled = list(first)
    kept = with_different_rewards(first, truncated)
    rounds = 0
    while num_groups(kept) < num and rounds < max_rounds:
        rounds += 1
        more = sample(rounds, num - num_groups(kept))
        sampled += more
        kept += with_different_rewards(more, truncated)
    return Refilled(sampled=sampled, kept=kept, rounds=rounds, num_groups=num)


def with_different_rewards(
    rollouts: Sequence[Rollout], truncated: Truncated = "score"
) -> list[Rollout]:
    """The rollouts of groups of which two rewards differ by more than rounding.

    Truncated rollouts that are dropped are compared with nothing, and a group of truncated ones
    alone that are masked has no token to train on.
    """
    rewards_G = defaultdict[int, list[float]](list)
    trained: set[int] = set()
    for rollout in rollouts:
        if rollout.reward is None or (rollout.truncated and truncated == "drop"):
            continue
        rewards_G[rollout.group].append(rollout.reward)
        if not (rollout.truncated and truncated == "mask"):
            trained.add(rollout.group)
    different = {
        group
        for group, rewards in rewards_G.items()
        if group in trained and not math.isclose(min(rewards), max(rewards), rel_tol=EQUAL)
    }
    return [rollout for rollout in rollouts if rollout.group in different]


def num_groups(rollouts: Sequence[Rollout]) -> int:
    """The number of groups that the rollouts are of."""
    return len({rollout.group for rollout in rollouts})
