"""Raw weights brought to the mass of their rollout."""

from __future__ import annotations

import torch

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
