"""Groups of equal rewards are replaced, within bounds, by prompts that depend on nothing else."""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby

import pytest

from reasontrain.data.order import Order
from reasontrain.run.refill import Refilled, refill
from reasontrain.types import Problem, Prompt, Rollout, Truncated
from tests.tiny import tokenizer

Rewards = tuple[float | None, float | None]


def groups(*rewards: Rewards, first: int = 0) -> list[Rollout]:
    """Groups of two rollouts each."""
    problem = Problem(id="a", prompt="")
    return [
        Rollout(
            problem=problem,
            id=first + 2 * i + j,
            group=first + 2 * i,
            prompt_ids=(1,),
            response_ids=(5,),
            reward=reward,
        )
        for i, pair in enumerate(rewards)
        for j, reward in enumerate(pair)
    ]


EQUAL, RIGHT, DIFFERENT = (0.0, 0.0), (1.0, 1.0), (0.0, 1.0)


def refilled(
    first: list[Rollout], *rounds: list[Rollout], max_rounds: int = 9
) -> tuple[Refilled, list[tuple[int, int]]]:
    """The rollouts after these rounds, and what was asked of the sampler."""
    calls: list[tuple[int, int]] = []

    def sample(number: int, missing: int) -> list[Rollout]:
        calls.append((number, missing))
        return rounds[number - 1]

    return refill(first, sample, num=3, max_rounds=max_rounds), calls


def kept(step: Refilled) -> list[int]:
    return [group for group, _ in groupby(rollout.group for rollout in step.kept)]


def test_only_what_is_missing_is_sampled_again() -> None:
    step, calls = refilled(
        groups(EQUAL, DIFFERENT, RIGHT),
        groups(EQUAL, EQUAL, first=10),
        groups(DIFFERENT, EQUAL, first=20),
        groups(DIFFERENT, first=30),
    )
    assert calls == [(1, 2), (2, 2), (3, 1)]
    assert kept(step) == [2, 20, 30]
    assert len(step.sampled) == 2 * 8
    assert step.metrics == {"refill_rounds": 3, "refill_filled_share": 1}


def test_a_full_step_is_sampled_once() -> None:
    step, calls = refilled(groups(DIFFERENT, DIFFERENT, DIFFERENT))
    assert calls == []
    assert step.sampled == step.kept
    assert step.metrics == {"refill_rounds": 0, "refill_filled_share": 1}


def test_rounds_are_bounded_and_nothing_is_made_up() -> None:
    rounds = [groups(EQUAL, EQUAL, EQUAL, first=10 * n) for n in (1, 2)]
    step, calls = refilled(groups(EQUAL, RIGHT, EQUAL), *rounds, max_rounds=2)
    assert calls == [(1, 3), (2, 3)]
    assert step.kept == []
    assert step.metrics == {"refill_rounds": 2, "refill_filled_share": 0}


@pytest.mark.parametrize(
    ("rewards", "differ"),
    [
        ((None, 1.0), False),
        ((None, None), False),
        ((0.3, 0.1 + 0.2), False),  # rounding
        ((1e-5, 2e-5), True),
    ],
)
def test_rewards_differ_by_more_than_rounding(rewards: Rewards, differ: bool) -> None:
    step, _ = refilled(groups(rewards), max_rounds=0)
    assert bool(step.kept) == differ


@pytest.mark.parametrize(
    ("rewards", "cut", "teaches"),
    [
        ((0.0, 1.0, 1.0), {0}, {"score": True, "mask": True, "drop": False}),
        ((0.0, 0.0, 1.0), {0}, {"score": True, "mask": True, "drop": True}),
        ((0.0, -0.5, 0.0), {0, 1, 2}, {"score": True, "mask": False, "drop": False}),
        ((0.0, 0.0, 0.0), {0}, {"score": False, "mask": False, "drop": False}),
    ],
)
def test_a_group_counts_if_what_is_trained_on_differs(
    rewards: tuple[float, ...], cut: set[int], teaches: dict[Truncated, bool]
) -> None:
    """Rewards that only dropped rollouts make different leave advantages of 0."""
    one = groups(DIFFERENT)[0]
    group = [
        replace(one, id=i, reward=reward, truncated=i in cut) for i, reward in enumerate(rewards)
    ]
    for truncated, expected in teaches.items():
        step = refill(group, lambda number, missing: [], num=1, max_rounds=0, truncated=truncated)
        assert step.kept == (group if expected else [])


def test_the_prompts_of_a_round_depend_on_seed_step_and_round_alone() -> None:
    prompts = [Prompt(problem=Problem(id=str(i), prompt=""), ids=(1,)) for i in range(12)]

    def at(step: int, number: int, seed: int = 1) -> list[str]:
        order = Order(prompts, per_step=4, seed=seed, tokenizer=tokenizer())
        return [prompt.problem.id for prompt in order.at(step, number)]

    chosen = {(step, number): at(step, number) for step in range(3) for number in range(3)}
    assert len({tuple(ids) for ids in chosen.values()}) == 9
    assert at(1, 2) == chosen[1, 2]
    assert at(1, 2, seed=2) != chosen[1, 2]
    for number in range(3):  # each round passes over all prompts
        assert sorted(i for step in range(3) for i in chosen[step, number]) == sorted(
            prompt.problem.id for prompt in prompts
        )
