"""Rewards of rollouts from several numbers, and a penalty for long responses.

Both change the rewards that advantages are computed from, and no verdict: `correct`, and so
accuracies, stay as they are. A rollout without a reward keeps none.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from annotated_types import MinLen

from reasontrain.types import AtLeastOne, Positive, Rollout, RunError, listed

OVERLONG = "overlong"
"""Name of the penalty among a rollout's `reward_parts`."""
KNOWN_NUMBERS = frozenset({"reward", "correct", "tokens"})
"""Numbers that every rollout with a reward has."""


@dataclass(frozen=True, kw_only=True)
class OneReward:
    """The reward as the task gives it."""

    kind: Literal["one"] = "one"

    def __call__(self, rollouts: Sequence[Rollout]) -> list[Rollout]:
        """The rollouts as they are."""
        return list(rollouts)


@dataclass(frozen=True, kw_only=True)
class WeightedRewards:
    """The sum of several numbers, each times its weight.

    `weights` maps names to weights, which may be negative. Names are those of the numbers that an
    own reward function returns beside `reward`, and, in every task: `reward`; `correct`, 1 for a
    right answer and 0 for any other; and `tokens`, the length of the response.

    Attributes:
        weights: name of a number -> its weight.
    """

    weights: Annotated[dict[str, float], MinLen(1)]
    kind: Literal["weighted"] = "weighted"

    def __call__(self, rollouts: Sequence[Rollout]) -> list[Rollout]:
        """The rollouts with the sum as their reward."""
        return [
            rollout if rollout.reward is None else replace(rollout, reward=self._sum(rollout))
            for rollout in rollouts
        ]

    def _sum(self, rollout: Rollout) -> float:
        values = _numbers(rollout, self.weights)
        return sum(weight * values[name] for name, weight in self.weights.items())


@dataclass(frozen=True, kw_only=True)
class LexicographicRewards:
    """The share of its group's other rollouts that a rollout beats by the first unequal number.

    Later numbers decide among rollouts that are equal in all before, so a small gain in an early
    one outweighs any gain in a later one, whatever their units. `order` lists names as `weights` of
    `weighted` has them; a `-` before a name prefers small numbers (`[correct, -tokens]`). Rewards
    are between 0 and 1, and 0 for all rollouts of a group in which all are equal.

    Attributes:
        order: names of numbers, the most important first.
    """

    order: Annotated[tuple[str, ...], MinLen(1)]
    kind: Literal["lexicographic"] = "lexicographic"

    def __call__(self, rollouts: Sequence[Rollout]) -> list[Rollout]:
        """The rollouts with their share of wins as their reward; they are whole groups."""
        keys = {
            rollout.id: self._key(rollout) for rollout in rollouts if rollout.reward is not None
        }
        groups = defaultdict[int, list[tuple[float, ...]]](list)
        for rollout in rollouts:
            if rollout.id in keys:
                groups[rollout.group].append(keys[rollout.id])
        return [
            replace(rollout, reward=_wins(keys[rollout.id], groups[rollout.group]))
            if rollout.id in keys
            else rollout
            for rollout in rollouts
        ]

    def _key(self, rollout: Rollout) -> tuple[float, ...]:
        """The numbers of a rollout, the most important first, higher is better."""
        names = [name.removeprefix("-") for name in self.order]
        values = _numbers(rollout, names)
        return tuple(
            -values[name] if signed.startswith("-") else values[name]
            for signed, name in zip(self.order, names, strict=True)
        )


RewardCombination = OneReward | WeightedRewards | LexicographicRewards


@dataclass(frozen=True, kw_only=True)
class Overlong:
    """A penalty that grows from 0 to `penalty` over the last `buffer` tokens of the limit.

    DAPO, arXiv 2503.14476, eq. 13 (soft overlong punishment): a response of n tokens with the limit
    L = `sample.max_tokens` gets -penalty max(0, n - (L - buffer)) / buffer beside its reward; one
    that was cut has n = L. verl: `overlong_buffer`.

    Attributes:
        buffer: tokens before the limit over which the penalty grows.
        penalty: the penalty at the limit, in the unit of the reward.
    """

    buffer: AtLeastOne
    penalty: Positive = 1.0

    def __call__(self, rollouts: Sequence[Rollout], max_tokens: int) -> list[Rollout]:
        """The rollouts with the penalty in their reward, and among their `reward_parts`."""
        return [
            rollout
            if rollout.reward is None
            else self._punished(rollout, rollout.reward, max_tokens)
            for rollout in rollouts
        ]

    def _punished(self, rollout: Rollout, reward: float, max_tokens: int) -> Rollout:
        over = max(0, len(rollout.response_ids) - (max_tokens - self.buffer))
        punishment = -self.penalty * min(over / self.buffer, 1.0)
        parts = {**rollout.reward_parts, OVERLONG: punishment}
        return replace(rollout, reward=reward + punishment, reward_parts=parts)


def _wins(key: tuple[float, ...], group: Sequence[tuple[float, ...]]) -> float:
    """The share of the others that a key is greater than; 0 without others."""
    return sum(key > other for other in group) / max(len(group) - 1, 1)


def _numbers(rollout: Rollout, names: Sequence[str] | Mapping[str, float]) -> dict[str, float]:
    """The named numbers of a rollout with a reward; 0 if its reward function failed."""
    assert rollout.reward is not None, "rollouts without a reward are left out before"
    known = {
        "correct": float(bool(rollout.correct)),
        "tokens": float(len(rollout.response_ids)),
        **rollout.reward_parts,
        "reward": rollout.reward,
    }
    missing = [name for name in names if name not in known]
    if missing and rollout.reward_failure is None:
        raise RunError(
            f"reward_combination: {rollout.problem.where} has no number {listed(missing)}; its "
            f"numbers are {listed(sorted(known))}, and an own reward function returns more of "
            f"them in a dict"
        )
    return {name: known.get(name, 0.0) for name in names}
