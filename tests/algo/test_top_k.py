"""Exact top-k against sorting by hand."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis.strategies import integers, sampled_from

from reasontrain.algo._top_k import lexsort, num_kept, top_rows, top_rows_per_rollout


@pytest.mark.parametrize(
    ("keep_ratio", "rows", "expected"),
    [
        (0.5, 7, 3),
        (0.1, 30, 3),
        (0.29, 100, 29),  # 0.29 * 100 is 28.999999999999996 in binary
        (0.58, 50, 29),  # so is 0.58 * 50
        (0.1, 9, 1),  # floor gives 0
        (0.1, 0, 0),
        (1.0, 5, 5),
        (1 / 3, 9, 3),
        (0.299999, 10, 2),
    ],
)
def test_num_kept(keep_ratio, rows, expected):
    assert num_kept(keep_ratio, torch.tensor([rows])).tolist() == [expected]


@given(percent=integers(1, 100), rows=integers(1, 5_000_000))
@settings(max_examples=200, deadline=None)
def test_num_kept_is_the_floor_of_the_number_as_it_was_written(percent, rows):
    exact = math.floor(Fraction(percent, 100) * rows)
    assert num_kept(percent / 100, torch.tensor([rows])).tolist() == [max(1, exact)]


# pairs (1,0) (0,2) (1,0) (0,1): in order 3, 1, then 0 before 2 as they stood
def test_lexsort_by_hand():
    assert lexsort(torch.tensor([1, 0, 1, 0]), torch.tensor([0.0, 2.0, 0.0, 1.0])).tolist() == [
        3,
        1,
        0,
        2,
    ]


def brute_force(score, among, order, places, num):
    """The first `num` of the places by (-score, order)."""
    return set(sorted((p for p in places if among[p]), key=lambda p: (-score[p], order[p]))[:num])


@given(seed=integers(0, 10_000), num=integers(0, 14), lowest=sampled_from([0.0, -math.inf]))
@settings(max_examples=60, deadline=None)
def test_top_rows_equal_sorting(seed, num, lowest):
    draw = torch.Generator().manual_seed(seed)
    score_BT = (
        torch.randint(0, 4, (3, 4), generator=draw).float().log().clamp(min=lowest)
    )  # many ties, and log 0
    among_BT = torch.rand(3, 4, generator=draw) < 0.7
    order_BT = torch.randperm(12, generator=draw).reshape(3, 4)
    score, among, order = (
        score_BT.flatten().tolist(),
        among_BT.flatten().tolist(),
        order_BT.flatten().tolist(),
    )

    weight = top_rows(score_BT, among_BT, num, order_BT).flatten().tolist()
    assert {p for p, w in enumerate(weight) if w == 1} == brute_force(
        score, among, order, range(12), num
    )
    assert set(weight) <= {0.0, 1.0}

    num_B = torch.tensor([num, 2, 0])
    weight = top_rows_per_rollout(score_BT, among_BT, num_B, order_BT).flatten().tolist()
    lines = [range(4 * b, 4 * b + 4) for b in range(3)]
    expected = [
        brute_force(score, among, order, places, n)
        for places, n in zip(lines, num_B.tolist(), strict=True)
    ]
    assert {p for p, w in enumerate(weight) if w == 1} == set().union(*expected)


# a quantile threshold would keep all six
def test_all_equal_scores_keep_exactly_as_many_as_asked():
    order_BT = torch.tensor([[10, 11, 12], [0, 1, 2]])
    weight_BT = top_rows(torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.bool), 4, order_BT)
    assert weight_BT.tolist() == [[1.0, 0.0, 0.0], [1.0, 1.0, 1.0]]


def test_a_nan_score_is_our_own_mistake():
    with pytest.raises(AssertionError, match="NaN"):
        top_rows(
            torch.tensor([[torch.nan, 1.0]]),
            torch.ones(1, 2, dtype=torch.bool),
            1,
            torch.tensor([[0, 1]]),
        )
