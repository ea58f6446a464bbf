"""Verdicts at every boundary and sign, and the choice of a rate, by hand."""

from __future__ import annotations

import pytest

from reasontrain.claims.verdict import SweptRate, chosen, verdict
from reasontrain.metrics.accuracy import Interval


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.020, 0.060, "holds"),  # above 0
        (0.001, 0.060, "holds"),  # just above 0, though wide
        (0.001, 0.009, "holds"),  # above 0 comes first, however small the difference
        (0.000, 0.060, "cannot tell"),  # touches 0, so it does not exclude it
        (0.000, 0.010, "does not hold"),  # touches 0, and lies within one point of it
        (-0.010, 0.010, "does not hold"),  # within one point, ends included
        (-0.0101, 0.010, "cannot tell"),  # just beyond one point below
        (-0.010, 0.0101, "cannot tell"),  # just beyond one point above
        (-0.060, 0.060, "cannot tell"),
        (-0.060, 0.000, "cannot tell"),  # touches 0 from below
        (-0.010, 0.000, "does not hold"),
        (-0.060, -0.001, "does not hold"),  # excludes 0 in the other direction
        (-0.009, -0.001, "does not hold"),
    ],
)
def test_the_verdict_at_every_boundary(low: float, high: float, expected: str):
    assert verdict(Interval((low + high) / 2, low, high)) == expected


def test_a_rate_is_chosen_by_its_mean_over_the_seeds():
    # means 0.30, 0.40 and 0.35: the best single seed (0.60) does not decide
    sweep = [
        SweptRate(rate=rate, development=found)
        for rate, found in [(1e-4, (0.3, 0.3)), (1e-3, (0.4, 0.4)), (1e-2, (0.6, 0.1))]
    ]
    assert chosen(sweep) == 1e-3
    assert chosen(sweep[::-1]) == 1e-3


def test_of_equal_rates_the_lowest_is_chosen():
    sweep = [SweptRate(rate=rate, development=(0.25, 0.5, 0.75)) for rate in (1e-3, 1e-4, 1e-2)]
    assert chosen(sweep) == 1e-4
