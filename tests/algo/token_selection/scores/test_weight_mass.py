"""Raw weights brought to the mass of their rollout."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis.strategies import floats, integers

from reasontrain.algo.token_selection.scores import weight_mass


def test_each_rollout_keeps_its_own_mass_and_nothing_else_has_any() -> None:
    raw_BT = torch.tensor([[9.0, 1.0, 3.0], [5.0, 2.0, 9.0], [0.0, 0.0, 9.0], [7.0, 7.0, 7.0]])
    among_BT = torch.tensor([[0, 1, 1], [1, 1, 0], [1, 1, 0], [0, 0, 0]]).bool()
    # 2 / 4 and 2 / 7; zeros are uniform; no token, no mass
    expected = torch.tensor(
        [[0, 0.5, 1.5], [10 / 7, 4 / 7, 0], [1, 1, 0], [0, 0, 0]], dtype=torch.float64
    )
    torch.testing.assert_close(weight_mass.spread(raw_BT, among_BT), expected)
    assert weight_mass.degenerate(raw_BT, among_BT).tolist() == [False, False, True, False]


def test_degenerate_is_below_a_millionth_on_average() -> None:
    among_BT = torch.ones(2, 4, dtype=torch.bool)
    raw_BT = torch.tensor([[4.1e-6, 0, 0, 0], [3.9e-6, 0, 0, 0]])
    assert weight_mass.degenerate(raw_BT, among_BT).tolist() == [False, True]
    assert weight_mass.spread(raw_BT, among_BT).tolist() == [[4, 0, 0, 0], [1, 1, 1, 1]]


def test_tokens_that_stand_apart_take_their_own_weight_alone() -> None:
    raw_BT, among_BT = torch.tensor([[1.0, 3.0, 8.0]]), torch.ones(1, 3, dtype=torch.bool)
    plain_BT = torch.tensor([[False, False, True]])
    assert weight_mass.spread(raw_BT, among_BT, plain_BT=plain_BT).tolist() == [[0.5, 1.5, 1.0]]
    assert weight_mass.spread(raw_BT, among_BT, plain_BT=among_BT).tolist() == [[1.0, 1.0, 1.0]]


# (.1, .1, .1, .9) -> 4 / 1.2 each: (1/3, 1/3, 1/3, 3). (.9, .5, .05, .05) -> (2.4, 1.33, .13, .13);
# 1.5 for the first leaves 2.5 for .6: (2.083, ...), so the second is 1.5 too and two share 1.
@pytest.mark.parametrize(
    ("raw", "cap", "expected"),
    [
        ([0.1, 0.1, 0.1, 0.9], 2.0, [2 / 3, 2 / 3, 2 / 3, 2]),
        ([0.9, 0.5, 0.05, 0.05], 1.5, [1.5, 1.5, 0.5, 0.5]),
        ([1.0, 0.0, 0.0, 0.0], 2.0, [2, 2 / 3, 2 / 3, 2 / 3]),
        ([0.1, 0.1, 0.1, 0.9], 1.0, [1, 1, 1, 1]),
        ([0.3, 0.1, 0.2, 0.4], 2.0, [1.2, 0.4, 0.8, 1.6]),
    ],
)
def test_what_a_cap_takes_away_goes_to_the_others(
    raw: list[float], cap: float, expected: list[float]
) -> None:
    among_BT = torch.tensor([[True] * 4 + [False]])
    raw_BT = torch.tensor([[*raw, 7.0]], dtype=torch.float64)
    torch.testing.assert_close(
        weight_mass.spread(raw_BT, among_BT, cap=cap),
        torch.tensor([[*expected, 0.0]], dtype=torch.float64),
    )


@given(seed=integers(0, 10_000), cap=floats(1, 6), surprise=floats(0, 1))
def test_a_cap_is_a_bound_and_the_mass_stays(seed: int, cap: float, surprise: float) -> None:
    draw = torch.Generator().manual_seed(seed)
    raw_BT = torch.rand(4, 30, generator=draw).double() ** 8
    raw_BT = torch.where(torch.rand(4, 30, generator=draw) < surprise, 0.0, raw_BT)
    among_BT = torch.rand(4, 30, generator=draw) < 0.8
    plain_BT = torch.rand(4, 30, generator=draw) < 0.1
    weight_BT = weight_mass.spread(raw_BT, among_BT, cap=cap, plain_BT=plain_BT)
    assert float(weight_BT.max()) <= cap
    torch.testing.assert_close(weight_BT.sum(1), among_BT.sum(1).double())
    assert bool((weight_BT[~among_BT] == 0).all())
    # It never orders two tokens the other way round.
    free_BT = among_BT & ~plain_BT
    for raw_T, weight_T, free_T in zip(raw_BT, weight_BT, free_BT, strict=True):
        order = raw_T[free_T].argsort()
        assert bool((weight_T[free_T][order].diff() >= -1e-12).all())
