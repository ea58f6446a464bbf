"""Excess loss by numbers worked by hand, and what brings it to a common measure."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis.strategies import integers
from torch import Tensor, tensor
from torch.testing import assert_close

from reasontrain.algo.token_selection.scores.excess_loss import (
    combined,
    detrended,
    normalised,
    retrospective,
    width,
)

# ssToken sheet, check 5: losses under the history model and now; their difference is REL
HISTORY, NOW = tensor(
    [[2.0, 1.0, 0.5, 3.0, 0.1], [1.0, 1.2, 0.4, 2.9, 0.1]], dtype=torch.float64
).split(1)
REL = tensor([[1.0, -0.2, 0.1, 0.1, 0.0]], dtype=torch.float64)
ALL = torch.ones(1, 5, dtype=torch.bool)


def test_it_is_high_where_the_loss_has_fallen() -> None:
    assert_close(retrospective(-NOW, -HISTORY), REL)


def test_min_max_is_that_of_the_paper() -> None:
    # (1 + .2) / 1.2 = 1, 0, (.1 + .2) / 1.2 = .25 twice, .2 / 1.2 = .1667
    assert_close(
        normalised(REL, ALL, "minmax"),
        tensor([[1, 0, 0.25, 0.25, 1 / 6]]).double(),
        rtol=0,
        atol=1e-7,
    )


def test_ranks_are_shares_of_the_others() -> None:
    # of four others, below 1: four; below -.2: none; below .1: two (an equal one is not below);
    # below 0: one
    assert normalised(REL, ALL, "rank").tolist() == [[1.0, 0.0, 0.5, 0.5, 0.25]]


def test_z_scores_have_mean_0_and_deviation_1() -> None:
    # mean .2; squares .64 + .16 + .01 + .01 + .04 = .86, over 5 .172, root .4147
    expected = (REL - 0.2) / 0.172**0.5
    assert_close(normalised(REL, ALL, "zscore"), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("norm", ["minmax", "rank", "zscore"])
@given(seed=integers(0, 10_000))
@settings(max_examples=10, deadline=None)
def test_each_rollout_is_measured_by_its_own_chosen_tokens(norm: str, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    value_BT, among_BT = torch.randn(3, 7, generator=draw), torch.rand(3, 7, generator=draw) < 0.6
    found_BT = normalised(torch.where(among_BT, value_BT, 1e6), among_BT, norm)
    for row in range(3):
        alone = value_BT[row][among_BT[row]][None]
        expected = normalised(alone, torch.ones_like(alone, dtype=torch.bool), norm)
        assert_close(found_BT[row][among_BT[row]][None], expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("norm", ["minmax", "rank", "zscore"])
@pytest.mark.parametrize("length", [0, 1, 3])
def test_equal_values_are_all_nothing(norm: str, length: int) -> None:
    among_BT = (torch.arange(4) < length)[None]
    found = normalised(torch.full((1, 4), 0.3), among_BT, norm)
    assert (found[among_BT] == 0).all()
    assert width(torch.full((1, 4), 0.3), among_BT).tolist() == [[0.0]]


def test_the_rounding_of_a_mean_is_no_deviation() -> None:
    value = torch.full((1, 7), 0.1, dtype=torch.float64)
    assert value.sum() / 7 != 0.1
    assert (normalised(value, torch.ones(1, 7, dtype=torch.bool), "zscore") == 0).all()


def test_width_is_of_the_chosen() -> None:
    assert_close(width(REL, ALL), tensor([[1.2]]).double(), rtol=0, atol=1e-6)
    assert_close(
        width(REL, tensor([[False, True, True, False, True]])),
        tensor([[0.3]]).double(),
        rtol=0,
        atol=1e-6,
    )


def test_a_straight_line_is_taken_out() -> None:
    # .9 .6 .5 .4 .3 over 0..4: mean .54, slope (-2 x .36 - 1 x .06 - 1 x .14 + 2 x -.24) / 10 =
    # -.14 so the line is .82 .68 .54 .40 .26, and what is left .08 -.08 -.04 0 .04
    attention = tensor([[0.9, 0.6, 0.5, 0.4, 0.3]], dtype=torch.float64)
    assert_close(
        detrended(attention, ALL),
        tensor([[0.08, -0.08, -0.04, 0.0, 0.04]], dtype=torch.float64),
        rtol=0,
        atol=1e-9,
    )
    gap = tensor([[True, False, True, True, False]])  # positions are those in the response: 0, 1, 2
    line = tensor([[3.0, 9.0, 5.0, 7.0, -9.0]])
    assert_close(detrended(line, gap), torch.zeros(1, 5).double(), rtol=0, atol=1e-9)


def test_gamma_is_a_mixture_of_the_two() -> None:
    excess, attention = (
        tensor([[1.0, 0.0], [1.0, 0.0]]).double(),
        tensor([[0.2, 0.6], [0.2, 0.6]]).double(),
    )
    found: Tensor = combined(excess, attention, tensor([[0.5], [0.0]]).double())
    assert_close(found, tensor([[0.6, 0.3], [0.2, 0.6]]).double())
