"""Covariances by hand, and how many tokens are left out of the candidates."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import tensor
from torch.testing import assert_close

from reasontrain.algo.token_selection import ClipCov
from reasontrain.algo.token_selection.scores.covariance import covariances

NAN = float("nan")


def a_step(steps):
    """Advantages 2, 2, -1, -1 of tokens (mean 1/2) and log-probs -1, -3, -2, -6 (mean -3)."""
    batch = steps.of(
        [[1, 2, 2, 0], [1, 2, 4, 2]],
        old_logp=[[NAN, -1.0, -3.0, NAN], [NAN, -2.0, NAN, -6.0]],
    )
    return replace(batch, advantage_B=tensor([2.0, -1.0]))


def test_covariances_by_hand(steps):
    expected = [[0, 1.5 * 2, 0, 0], [0, -1.5 * 1, 0, -1.5 * -3]]
    step = a_step(steps)
    assert_close(covariances(step, step.is_response_BT), tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (ClipCov(low=1.0, high=4.0), [[0, 0, 1, 0], [0, 1, 0, 1]]),  # 3 alone is between
        (ClipCov(low=4.0, high=5.0), [[0, 1, 1, 0], [0, 1, 0, 0]]),  # 4.5 alone
        (ClipCov(low=5.0, high=9.0), [[0, 1, 1, 0], [0, 1, 0, 1]]),  # none
        (ClipCov(share=0.5, low=1.0, high=5.0), [[0, 0, 1, 0], [0, 1, 0, 0]]),  # half of the 4
    ],
)
def test_what_is_left_out_by_hand(steps, rule, expected):
    assert rule(a_step(steps)).tolist() == expected


def test_one_of_the_candidates_is_left_out_at_random(steps):
    rule = ClipCov(low=1.0, high=5.0)  # of 3 and 4.5
    chosen = set()
    for seed in range(20):
        batch = replace(a_step(steps), seed=seed)
        weight_BT = rule(batch)
        assert torch.equal(weight_BT, rule(batch))
        (place,) = (batch.is_response_BT & (weight_BT == 0)).nonzero().tolist()
        chosen.add(tuple(place))
    assert chosen == {(0, 1), (1, 3)}


def test_bounds_that_leave_no_candidate_are_refused():
    with pytest.raises(ValueError, match="low 5 is not below high 5"):
        ClipCov(low=5.0)
