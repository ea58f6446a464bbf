"""Quadrants, their shares and their recall, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from reasontrain.algo.token_selection.scores.quadrants import (
    Quadrant,
    Thresholds,
    medians,
    quadrants,
    recall,
    shares,
)

ALL = torch.ones(1, 4, dtype=torch.bool)
NAN = float("nan")


def planted() -> tuple[torch.Tensor, torch.Tensor]:
    """Entropy and KL(p || q) of (p, q) = (.5, .99), (.5, .5), (.99, .01), (.99, .99): Q1, Q2, Q3,
    Q4 of the sheet's test 7.
    """
    p = torch.tensor([[0.5, 0.5, 0.99, 0.99]], dtype=torch.float64)
    q = torch.tensor([[0.99, 0.5, 0.01, 0.99]], dtype=torch.float64)
    entropy = -(p * p.log() + (1 - p) * (1 - p).log())
    return entropy, p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()


def test_planted_quadrants_by_medians_and_by_fixed_thresholds():
    entropy, divergence = planted()
    middle = medians(entropy, divergence, ALL)
    # sorted entropies .056 .056 .693 .693: (H(.99) + H(.5)) / 2; sorted divergences 0 0 1.614
    # 4.503: 1.614 / 2
    assert middle.entropy == pytest.approx((0.0560015 + math.log(2)) / 2, abs=1e-6)
    assert middle.divergence == pytest.approx(
        (0.5 * math.log(0.5 / 0.99) + 0.5 * math.log(0.5 / 0.01)) / 2, abs=1e-12
    )
    expected = [[Quadrant.Q1, Quadrant.Q2, Quadrant.Q3, Quadrant.Q4]]
    for thresholds in (middle, Thresholds(entropy=0.3, divergence=0.5)):
        assert quadrants(entropy, divergence, ALL, thresholds).tolist() == expected


def test_a_value_at_the_threshold_is_low():
    equal = torch.full((1, 4), 0.5)
    assert quadrants(equal, equal, ALL, medians(equal, equal, ALL)).tolist() == [[Quadrant.Q4] * 4]


def test_only_the_chosen_count():
    entropy = torch.tensor([[NAN, 1.0, 3.0, 5.0, NAN]])
    divergence = torch.tensor([[NAN, 4.0, 2.0, 0.0, NAN]])
    among = torch.tensor([[False, True, True, True, False]])
    middle = medians(entropy, divergence, among)
    assert (middle.entropy, middle.divergence) == (3.0, 2.0)
    assert quadrants(entropy, divergence, among, middle).tolist() == [
        [0, Quadrant.Q3, Quadrant.Q4, Quadrant.Q2, 0]
    ]


def test_shares_and_recall_by_hand():
    quadrant = torch.tensor([[0, 1, 2, 2, 3, 3, 3, 4, 4, 4, 4]])
    response, kept = (
        quadrant != 0,
        torch.tensor([[False, True, True, False, True, True, False, False, False, False, False]]),
    )
    assert shares(quadrant, response) == {
        Quadrant.Q1: 0.1,
        Quadrant.Q2: 0.2,
        Quadrant.Q3: 0.3,
        Quadrant.Q4: 0.4,
    }
    assert shares(quadrant, kept) == {
        Quadrant.Q1: 0.25,
        Quadrant.Q2: 0.25,
        Quadrant.Q3: 0.5,
        Quadrant.Q4: 0.0,
    }
    assert recall(quadrant, kept) == pytest.approx(2 / 3)
    assert recall(quadrant, kept, Quadrant.Q2) == 0.5


def test_shares_and_recall_of_nothing():
    nothing = torch.zeros(1, 3, dtype=torch.long)
    assert set(shares(nothing, nothing.bool()).values()) == {0.0}
    assert recall(nothing, nothing.bool()) is None
