"""Rewards by hand from several numbers, and the penalty of long responses."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis.strategies import integers, lists, sampled_from

from reasontrain.algo.reward_shaping import (
    OVERLONG,
    LexicographicRewards,
    OneReward,
    Overlong,
    RewardCombination,
    WeightedRewards,
)
from reasontrain.types import Problem, Rollout, RunError

PROBLEM = Problem(id="a", prompt="", source="p.jsonl:3")


def rollout(
    number: int, reward: float | None, length: int = 1, group: int = 0, **parts: float
) -> Rollout:
    return Rollout(
        problem=PROBLEM,
        id=number,
        group=group,
        prompt_ids=(1,),
        response_ids=(5,) * length,
        reward=reward,
        correct=None if reward is None else reward >= 1,
        reward_parts=parts,
    )


def rewards(rollouts: list[Rollout]) -> list[float | None]:
    return [one.reward for one in rollouts]


def test_a_weighted_sum_by_hand() -> None:
    some = [
        rollout(0, 1.0, 4, form=0.5),  # 1 + 2 * 0.5 - 0.1 * 4
        rollout(1, 0.25, 10, form=1.0),  # 0.25 + 2 - 1
        rollout(2, None, 3, form=1.0),
    ]
    combined = WeightedRewards(weights={"reward": 1.0, "form": 2.0, "tokens": -0.1})(some)
    assert rewards(combined) == [pytest.approx(1.6), pytest.approx(1.25), None]
    assert [one.correct for one in combined] == [True, False, None]
    assert rewards(WeightedRewards(weights={"correct": 3.0})(some)) == [3.0, 0.0, None]
    assert OneReward()(some) == some


def test_the_first_number_that_differs_decides() -> None:
    some = [
        rollout(0, 1.0, 9),  # right and long: beats both wrong ones
        rollout(1, 1.0, 4),  # right and short: beats all three
        rollout(2, 0.0, 1),  # beats nothing but the longer wrong one
        rollout(3, 0.0, 2),
        rollout(4, None, 1),
        rollout(5, 0.0, 2, group=1),  # all of its group are equal
        rollout(6, 0.0, 2, group=1),
    ]
    combined = LexicographicRewards(order=("correct", "-tokens"))(some)
    assert rewards(combined) == [
        pytest.approx(2 / 3),
        1.0,
        pytest.approx(1 / 3),
        0.0,
        None,
        0.0,
        0.0,
    ]
    assert rewards(LexicographicRewards(order=("tokens",))(some[:3])) == [1.0, 0.5, 0.0]


@given(
    values=lists(sampled_from([0.0, 0.5, 1.0]), min_size=2, max_size=8),
    scale=sampled_from([0.5, 2.0, 1024.0]),
    turn=integers(0, 7),
)
def test_neither_units_nor_the_order_of_rollouts_change_a_rank(
    values: list[float], scale: float, turn: int
) -> None:
    some = [rollout(i, 1.0, i % 3 + 1, form=value) for i, value in enumerate(values)]
    combine = LexicographicRewards(order=("form", "-tokens"))
    ranked = {one.id: one.reward for one in combine(some)}
    scaled = [replace(one, reward_parts={"form": scale * one.reward_parts["form"]}) for one in some]
    turn %= len(some)
    assert {one.id: one.reward for one in combine(scaled[turn:] + scaled[:turn])} == ranked


@pytest.mark.parametrize(
    "combine",
    [WeightedRewards(weights={"form": 1.0}), LexicographicRewards(order=("-form",))],
    ids=["weighted", "lexicographic"],
)
def test_a_number_that_is_not_there_stops_the_run(combine: RewardCombination) -> None:
    with pytest.raises(RunError, match=r"p.jsonl:3: problem a has no number form; its numbers are"):
        combine([rollout(0, 1.0)])
    failed = replace(rollout(0, 0.0), reward_failure="timeout")  # its function returned nothing
    assert combine([failed])[0].reward == 0


# limit 10, buffer 4: nothing up to 6 tokens, then a quarter of the penalty per token
@pytest.mark.parametrize(
    ("length", "punishment"), [(1, 0), (6, 0), (7, -0.25), (9, -0.75), (10, -1)]
)
def test_the_penalty_grows_over_the_buffer(length: int, punishment: float) -> None:
    (one,) = Overlong(buffer=4)([rollout(0, 1.0, length)], 10)
    assert one.reward == 1 + punishment
    assert one.reward_parts == {OVERLONG: punishment}
    (twice,) = Overlong(buffer=4, penalty=2.0)([rollout(0, 1.0, length)], 10)
    assert twice.reward == 1 + 2 * punishment
    assert one.correct


def test_without_a_reward_nothing_is_punished() -> None:
    some = [rollout(0, None, 10)]
    assert Overlong(buffer=4)(some, 10) == some
