"""The widest subset against all subsets; what groups of 0/1 rewards keep, by hand; ties, budgets
and what is never kept.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from math import sqrt

import pytest
import torch
from hypothesis import given
from hypothesis.strategies import floats, integers, lists, one_of, sampled_from
from torch import Tensor, tensor
from torch.testing import assert_close

from reasontrain.algo.advantages import GroupNormalized, MeanCentred
from reasontrain.algo.rollout_filter.chain import FilterChain
from reasontrain.algo.rollout_filter.max_variance import num_lowest
from reasontrain.algo.token_selection import (
    AllRollouts,
    LinearSchedule,
    MaxVariance,
    RandomRollouts,
    RolloutFilter,
)
from reasontrain.types import Batch, TokenKind

ALL, HALF = LinearSchedule(init=1.0), LinearSchedule(init=0.5)
numbers = one_of(
    lists(floats(-3, 3, width=32), min_size=1, max_size=9),
    lists(integers(0, 1).map(float), min_size=1, max_size=9),
    lists(integers(-2, 2).map(float), min_size=1, max_size=9),
    lists(sampled_from([-2.475, -0.354, 0.354, 2.475]), min_size=1, max_size=9),
)


def step(
    rewards: list[float],
    group_size: int,
    *,
    advantage: GroupNormalized | MeanCentred | None = None,
    **changes: object,
) -> Batch:
    """One response token for each rollout; rollout ids from 100."""
    num = len(rewards)
    group_B, reward_B = torch.arange(num) // group_size, tensor(rewards)
    found = Batch(
        ids_BT=torch.zeros(num, 2, dtype=torch.long),
        kind_BT=tensor([[TokenKind.PROMPT, TokenKind.RESPONSE]]).repeat(num, 1),
        rollout_B=torch.arange(num) + 100,
        group_B=group_B,
        reward_B=reward_B,
        advantage_B=(advantage or GroupNormalized(eps=0.0))(reward_B, group_B),
        sampled_rollouts=num,
        sampled_tokens=num,
    )
    return replace(found, **changes)


def binary(*right: int, group_size: int = 8, **changes: object) -> Batch:
    """Groups of which so many answers are right."""
    return step([float(i < num) for num in right for i in range(group_size)], group_size, **changes)


def with_advantages(values: list[float]) -> Batch:
    """One group with these advantages."""
    return replace(
        step([0.0] * len(values), len(values), advantage=MeanCentred()), advantage_B=tensor(values)
    )


# ---- the argmax


@given(values=numbers)
def test_no_subset_has_a_greater_variance(values: list[float]) -> None:
    """D3S sheet, test 1: values are compared, since sets may tie; N = 1 has no variance, and takes
    the largest in size.
    """
    sorted_M = tensor(values, dtype=torch.float64).sort().values
    for num in range(1, len(values) + 1):
        lowest = num_lowest(sorted_M, num)
        found_N = torch.cat([sorted_M[:lowest], sorted_M[len(values) - (num - lowest) :]])
        assert len(found_N) == num
        best = max(
            float(sorted_M[list(some)].var(correction=0))
            for some in combinations(range(len(values)), num)
        )
        assert float(found_N.var(correction=0)) == pytest.approx(best, abs=1e-9)
    assert float(sorted_M[:1] if num_lowest(sorted_M, 1) else sorted_M[-1:]) in (
        sorted_M.abs().max(),
        -sorted_M.abs().max(),
    )


@pytest.mark.parametrize("num", range(1, 13))
def test_no_subset_of_twelve_has_a_greater_variance(num: int) -> None:
    for seed in range(3):
        draw = torch.Generator().manual_seed(seed)
        values = (
            [torch.randn(12, generator=draw), torch.randint(0, 2, (12,), generator=draw)][seed % 2]
            .double()
            .sort()
            .values
        )
        lowest = num_lowest(values, num)
        found_N = torch.cat([values[:lowest], values[12 - (num - lowest) :]])
        best = max(
            float(values[list(some)].var(correction=0)) for some in combinations(range(12), num)
        )
        assert float(found_N.var(correction=0)) == pytest.approx(best, abs=1e-12)


def test_the_population_variance_can_fall_and_the_unbiased_one_does_not() -> None:
    """D3S sheet, test 2: of {-1, -1, 1, 1} three are kept, {-1, 1, 1}: mean 1/3, squares 3, so 3 -
    1/3 = 8/3 over 3 or over 2.
    """
    kept_N = MaxVariance(keep_ratio=LinearSchedule(init=0.75))(
        with_advantages([-1.0, 1.0, -1.0, 1.0])
    ).advantage_B
    assert float(kept_N.var(correction=0)) == pytest.approx(8 / 9)
    assert float(kept_N.var()) == pytest.approx(4 / 3)


@given(values=numbers, keep_ratio=sampled_from([0.1, 0.3, 0.5, 0.75, 0.9]))
def test_the_kept_vary_at_least_as_much_as_all(values: list[float], keep_ratio: float) -> None:
    """D3S sheet, test 2: with n - 1 below the line, for N >= 2."""
    if len(values) < 2:
        return
    all_B = with_advantages(values).advantage_B.double()
    kept_K = MaxVariance(keep_ratio=LinearSchedule(init=keep_ratio), std_floor=0.0)(
        with_advantages(values)
    ).advantage_B.double()
    if len(kept_K) >= 2:
        assert float(kept_K.var()) >= float(all_B.var()) - 1e-9


@pytest.mark.parametrize(
    ("right", "kept"), [(1, (1, 3)), *((k, (2, 2)) for k in range(2, 7)), (7, (3, 1))]
)
def test_a_group_of_right_and_wrong_answers(right: int, kept: tuple[int, int]) -> None:
    """D3S sheet, test 3: N = 4 of 8; 2 + 2 wherever there are two of each."""
    for scope in ("group", "batch"):
        left = MaxVariance(scope=scope, keep_ratio=HALF)(binary(right))
        assert (int((left.reward_B == 1).sum()), int((left.reward_B == 0).sum())) == kept


def test_equal_variances_are_decided_by_the_smaller_mean_and_then_by_fewer_small_values() -> None:
    """Three of four, with 0, 1, 2 or 3 small ones: {-1 1 1} twice and {-1 -1 1} twice, of one
    |mean|, so 0; of {0 0 1} and {0 1 1} the first, which first comes with 2; {-3 1 5} comes with 1
    and with 2.
    """
    assert num_lowest(tensor([-1.0, -1.0, 1.0, 1.0]).double(), 3) == 0
    assert num_lowest(tensor([0.0, 0.0, 1.0, 1.0]).double(), 3) == 2
    assert num_lowest(tensor([-3.0, 1.0, 1.0, 5.0]).double(), 3) == 1


def test_rounding_makes_no_difference_between_equal_variances() -> None:
    """0.1 and 0.3 are no sums of powers of two; the two sides of zero must tie all the same, and
    the first wins.
    """
    for scale in (0.1, 0.3, 1e-4, 7e5):
        assert (
            num_lowest(scale * tensor([-1.0, -1.0, -1.0, 1.0, 1.0, 1.0]).double(), 5) == 0
        )  # -1 -1 1 1 1 before -1 -1 -1 1 1


# ---- scopes


def test_across_groups_rare_answers_come_first_and_useless_groups_never() -> None:
    """With n - 1: one success of 8 has A = 2.475, its failures -0.354; 4 of 8 have 0.935; 8 of 8
    have 0.
    """
    sampled = binary(1, 4, 7, 8)
    assert sampled.advantage_B.unique().tolist() == pytest.approx(
        [-2.4749, -0.9354, -0.3536, 0, 0.3536, 0.9354, 2.4749], abs=1e-4
    )
    first = MaxVariance(keep_ratio=LinearSchedule(init=2 / 32))(sampled)
    assert first.advantage_B.tolist() == pytest.approx([7 / sqrt(8), -7 / sqrt(8)])
    balanced = MaxVariance(keep_ratio=LinearSchedule(init=10 / 32))(sampled)
    assert balanced.group_B.tolist() == [0] + [1] * 8 + [2]
    most = MaxVariance(keep_ratio=LinearSchedule(init=24 / 32))(sampled)
    assert most.group_B.tolist() == [0] * 8 + [1] * 8 + [2] * 8


@given(
    right=lists(integers(0, 8), min_size=2, max_size=6),
    keep_ratio=sampled_from([0.1, 0.25, 0.5, 0.75, 1.0]),
)
def test_rollouts_without_advantage_are_kept_when_no_others_are_left(
    right: list[int], keep_ratio: float
) -> None:
    """D3S sheet, test 5: min(1, nonzero / N) of the kept have an advantage."""
    sampled = binary(*right)
    kept = MaxVariance(keep_ratio=LinearSchedule(init=keep_ratio))(sampled)
    nonzero, num = (
        int((sampled.advantage_B != 0).sum()),
        max(1, int(keep_ratio * len(sampled.rollout_B))),
    )
    if nonzero == 0:
        assert len(kept.rollout_B) == 0
        return
    assert len(kept.rollout_B) == num
    assert int((kept.advantage_B != 0).sum()) == min(num, nonzero)


def test_in_groups_each_keeps_its_own_number_and_one_without_a_difference_none() -> None:
    kept = MaxVariance(scope="group", keep_ratio=HALF)(binary(1, 8, 4, 0, group_size=8))
    assert kept.group_B.tolist() == [0] * 4 + [2] * 4


def test_nothing_is_kept_of_a_step_without_advantages_and_what_was_sampled_is_known() -> None:
    kept = MaxVariance()(binary(0, 8))
    assert kept.ids_BT.shape == (0, 2)
    assert (
        kept.totals().rollouts,
        kept.totals().sampled_rollouts,
        kept.totals().sampled_tokens,
    ) == (0, 16, 16)


def test_rewards_that_differ_by_rounding_are_no_difference() -> None:
    """Differences of a millionth have a root mean square of half of it, below 1e-4."""
    sampled = step([0.1, 0.100001, 0.1, 0.100001], 4, advantage=MeanCentred())
    assert len(MaxVariance(keep_ratio=HALF)(sampled).rollout_B) == 0
    assert len(MaxVariance(keep_ratio=HALF, std_floor=0.0)(sampled).rollout_B) == 2


def test_masked_rollouts_are_no_candidates() -> None:
    sampled = binary(1)
    kind_BT = sampled.kind_BT.clone()
    kind_BT[0, 1] = TokenKind.MASKED
    kept = MaxVariance(keep_ratio=ALL)(replace(sampled, kind_BT=kind_BT))
    assert kept.rollout_B.tolist() == list(range(101, 108))
    assert 100 not in RandomRollouts(keep_ratio=ALL)(replace(sampled, kind_BT=kind_BT)).rollout_B


# ---- advantages


@given(
    right=lists(integers(0, 8), min_size=1, max_size=4),
    scope=sampled_from(["group", "batch"]),
    keep_ratio=sampled_from([0.2, 0.6]),
)
def test_advantages_stay_what_the_whole_group_made_them(
    right: list[int], scope: str, keep_ratio: float
) -> None:
    """D3S sheet, test 4: bit for bit."""
    sampled = binary(*right)
    kept = MaxVariance(scope=scope, keep_ratio=LinearSchedule(init=keep_ratio))(sampled)
    before = dict(zip(sampled.rollout_B.tolist(), sampled.advantage_B.tolist(), strict=True))
    assert kept.advantage_B.tolist() == [before[rollout] for rollout in kept.rollout_B.tolist()]


@given(seed=integers(0, 1000), scope=sampled_from(["group", "batch"]))
def test_made_anew_they_have_mean_0_and_standard_deviation_1(seed: int, scope: str) -> None:
    """D3S sheet, test 4, PODS: up to eps = 1e-4."""
    draw = torch.Generator().manual_seed(seed)
    sampled = step(torch.rand(24, generator=draw).tolist(), 8, advantage=MeanCentred())
    kept = MaxVariance(scope=scope, keep_ratio=HALF, renormalise=True)(sampled)
    pool_B = kept.group_B if scope == "group" else torch.zeros_like(kept.group_B)
    for pool in pool_B.unique():
        advantage_K = kept.advantage_B[pool_B == pool].double()
        assert float(advantage_K.mean()) == pytest.approx(0, abs=1e-6)
        assert float(advantage_K.std()) == pytest.approx(1, abs=1e-3)


def test_pods_by_hand() -> None:
    """Rewards 0 .2 .5 1, two of four: 0 and 1; mean 1/2, std 1/sqrt 2, so -+ 0.5 / (0.70711 + 1e-4)
    = 0.70701.
    """
    kept = MaxVariance(scope="group", keep_ratio=HALF, renormalise=True)(
        step([0.2, 1.0, 0.5, 0.0], 4, advantage=MeanCentred())
    )
    assert kept.reward_B.tolist() == [1.0, 0.0]
    assert_close(kept.advantage_B, tensor([0.707007, -0.707007]), rtol=0, atol=1e-6)


def test_one_that_is_left_of_its_group_has_nobody_to_be_compared_with() -> None:
    kept = MaxVariance(scope="group", keep_ratio=LinearSchedule(init=0.1), renormalise=True)(
        binary(1)
    )
    assert kept.advantage_B.tolist() == [0.0]


# ---- ties, budgets, layouts


def every_rule(keep_ratio: LinearSchedule) -> list[RolloutFilter]:
    return [
        rule(scope=scope, keep_ratio=keep_ratio)
        for rule in (MaxVariance, RandomRollouts)
        for scope in ("group", "batch")
    ]


rules = pytest.mark.parametrize("index", range(4))


@rules
@given(seed=integers(0, 1000), progress=floats(0, 1), init=floats(0.01, 1), final=floats(0.01, 1))
def test_never_none_and_never_more_than_there_are(
    index: int, seed: int, progress: float, init: float, final: float
) -> None:
    """D3S sheet, test 8."""
    draw = torch.Generator().manual_seed(seed)
    sampled = step(torch.rand(24, generator=draw).tolist(), 8, progress=progress)
    kept = every_rule(LinearSchedule(init=init, final=final))[index](sampled)
    keep_ratio = (1 - progress) * init + progress * final
    pools = [8] * 3 if index % 2 == 0 else [24]
    assert len(kept.rollout_B) == sum(max(1, int(keep_ratio * size + 1e-6)) for size in pools)


@rules
@given(seed=integers(0, 1000))
def test_neither_order_nor_padding_changes_what_is_kept(index: int, seed: int) -> None:
    """Ties are many, and are drawn by rollout id."""
    draw = torch.Generator().manual_seed(seed)
    sampled = binary(*torch.randint(0, 9, (4,), generator=draw).tolist(), seed=seed, step=3)
    order = torch.randperm(32, generator=draw)
    rule = every_rule(HALF)[index]
    one, other = rule(sampled), rule(sampled.take(order))
    assert set(one.rollout_B.tolist()) == set(other.rollout_B.tolist())
    assert one.rollout_B.tolist() == sorted(one.rollout_B.tolist())  # in the order of the batch


@rules
def test_equal_rollouts_are_kept_alike_over_steps_and_seeds(index: int) -> None:
    """Of four groups of 4 right and 4 wrong, half is kept: each rollout in about half of 400 steps
    (deviation 0.025).
    """
    rule = every_rule(HALF)[index]
    times_B = torch.zeros(32)
    for number in range(400):
        times_B[rule(binary(4, 4, 4, 4, seed=number % 2, step=number)).rollout_B - 100] += 1
    assert_close(times_B / 400, torch.full((32,), 0.5), rtol=0, atol=0.11)
    assert not torch.equal(
        rule(binary(4, 4, 4, 4, seed=1)).rollout_B, rule(binary(4, 4, 4, 4, seed=2)).rollout_B
    )


@pytest.mark.parametrize("scope", ["group", "batch"])
def test_random_rollouts_are_as_many_beside_groups_without_a_signal(scope: str) -> None:
    for sampled in (binary(0, 3, 8, 4), binary(8, 8, 1, 0)):
        widest = MaxVariance(scope=scope, keep_ratio=HALF)(sampled)
        drawn = RandomRollouts(scope=scope, keep_ratio=HALF)(sampled)
        assert len(widest.rollout_B) == len(drawn.rollout_B)
        if scope == "group":
            assert drawn.group_B.tolist() == widest.group_B.tolist()
    # Without advantages no group has a signal, and there is nothing to be equal to.
    none = binary(0, 8)
    assert len(RandomRollouts(scope=scope, keep_ratio=HALF)(none).rollout_B) == 8


@given(seed=integers(0, 1000))
def test_two_stages_are_the_widest_of_each_group_and_of_these_the_widest(seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    sampled = step(torch.rand(18, generator=draw).tolist(), 6)
    chain = FilterChain(
        filters=(
            MaxVariance(scope="group", keep_ratio=LinearSchedule(init=0.5)),
            MaxVariance(scope="batch", keep_ratio=LinearSchedule(init=0.6)),
        )
    )
    value = dict(zip(sampled.rollout_B.tolist(), sampled.advantage_B.tolist(), strict=True))

    def widest(rollouts: list[int], num: int) -> list[int]:
        def variance(some: tuple[int, ...]) -> float:
            return float(tensor([value[one] for one in some]).double().var(correction=0))

        return list(max(combinations(rollouts, num), key=variance))

    stage = [one for start in (100, 106, 112) for one in widest([*range(start, start + 6)], 3)]
    assert chain(sampled).rollout_B.tolist() == sorted(widest(stage, 5))  # 0.6 of 9
    assert chain.kept_share(0.3) == pytest.approx(0.3)
    assert chain(sampled).sampled_rollouts == 18


def test_random_rollouts_do_not_look_at_advantages() -> None:
    sampled = binary(1, 4)
    other = replace(sampled, advantage_B=-3 * sampled.advantage_B.flip(0))
    assert torch.equal(RandomRollouts()(sampled).rollout_B, RandomRollouts()(other).rollout_B)


def test_everything_is_everything() -> None:
    sampled = binary(0, 4)
    assert AllRollouts()(sampled) is sampled


def columns(batch: Batch) -> list[Tensor]:
    return [batch.ids_BT, batch.rollout_B, batch.advantage_B, batch.reward_B]


@given(seed=integers(0, 1000))
def test_the_whole_share_is_the_plain_batch(seed: int) -> None:
    """D3S sheet, test 7, its part of the rollouts."""
    draw = torch.Generator().manual_seed(seed)
    sampled = step(torch.rand(16, generator=draw).tolist(), 8)
    for rule in every_rule(ALL):
        assert all(
            torch.equal(a, b) for a, b in zip(columns(rule(sampled)), columns(sampled), strict=True)
        )
