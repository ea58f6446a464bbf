"""Weights and their health, by hand."""

import math

import torch
from torch import tensor
from torch.testing import assert_close

from reasontrain.algo.token_selection.scores.contrast import scored, weights


def test_a_weight_is_one_minus_the_score_even_where_that_rounds() -> None:
    logscore = tensor([0.2, 0.9, 0.5, 1.0]).log()
    assert_close(weights(logscore), tensor([0.8, 0.1, 0.5, 0.0]))
    assert_close(
        weights(tensor([-1e-9, -1e30, 1e-7])), tensor([1e-9, 1.0, 0.0]), rtol=1e-6, atol=0
    )  # 1 - exp(-1e-9) is 0


def test_statistics_by_hand_leave_out_what_has_no_score() -> None:
    found = scored(torch.cat([tensor([0.05, 0.15, 0.4]).log(), tensor([torch.nan])]))
    assert {name: round(value, 6) for name, value in found.items()} == {
        "ce_score_mean": 0.2,
        "ce_low_share": round(1 / 3, 6),
        "ce_weight_mean": 0.8,
    }
    assert math.isclose(found["ce_score_mean"] + found["ce_weight_mean"], 1.0, abs_tol=1e-9)
    assert scored(tensor([torch.nan])) == {}
