"""Trained tokens until an accuracy: curves by hand, and what their intervals cover."""

from __future__ import annotations

import numpy as np
import pytest

from reasontrain.claims.saving import Curves, reach, saving
from reasontrain.metrics.accuracy import Interval
from reasontrain.types import RunError


def curves(
    accuracies: list[float], tokens: list[float], num_seeds: int = 3, num_problems: int = 100
) -> Curves:
    """Runs that agree: every problem has the accuracy itself as its score, so that no draw changes
    a curve.
    """
    score_REM = np.broadcast_to(
        np.array(accuracies)[None, :, None], (num_seeds, len(accuracies), num_problems)
    ).copy()
    return Curves(
        score_REM=score_REM, tokens_RE=np.tile(np.array(tokens, dtype=float), (num_seeds, 1))
    )


def test_a_level_is_reached_on_a_straight_line():
    # 0.2 at 0, 0.4 at 100, 0.3 at 200, 0.6 at 300: 0.3 first at 50, half way up the first line;
    # 0.45 at 200 + 100 * 0.15 / 0.3
    tokens_E, accuracy_E = np.array([0.0, 100, 200, 300]), np.array([0.2, 0.4, 0.3, 0.6])
    found = [reach(tokens_E, accuracy_E, target) for target in (0.1, 0.3, 0.45, 0.6)]
    assert found == pytest.approx([0, 50, 250, 300])


def test_the_saving_is_read_at_an_accuracy_that_both_reach():
    # Both end at 0.6 or above; the lower end is 0.6. First arm: 0.6 at 300 tokens. Second: 0.2 at
    # 0, 0.8 at 1,200: 0.6 at 800.
    fast, slow = curves([0.2, 0.6], [0, 300]), curves([0.2, 0.8], [0, 1200])
    found = saving(fast, slow)
    assert (found.value, found.low, found.high) == pytest.approx((1 - 300 / 800,) * 3)
    # The other way round: 800 tokens where 300 do.
    back = saving(slow, fast)
    assert (back.value, back.low, back.high) == pytest.approx((1 - 800 / 300,) * 3)


def test_an_arm_that_learned_nothing_is_named():
    with pytest.raises(
        RunError,
        match=r"the second arm ends at accuracy 0\.200, no better than it began \(0\.200\)",
    ):
        saving(curves([0.2, 0.6], [0, 300]), curves([0.2, 0.2], [0, 300]))


def test_draws_move_problems_and_seeds():
    # One problem in two is learned at once by every seed of both arms, so the lower end is the
    # share of such problems in the draw and both reach it together: no saving in any draw. With
    # seeds that pay 100, 200 and 300 tokens, two of three are drawn, and the mean of the treated
    # arm is 100 with chance 1/9 and 300 with chance 1/9: the interval is 1 - 300/200 to 1 -
    # 100/200.
    score_REM = np.zeros((3, 2, 10))
    score_REM[:, 1, :5] = 1
    same = Curves(score_REM=score_REM, tokens_RE=np.array([[0.0, 200]] * 3))
    assert saving(same, same) == Interval(0.0, 0.0, 0.0)
    uneven = Curves(score_REM=score_REM, tokens_RE=np.array([[0.0, 100], [0, 200], [0, 300]]))
    assert saving(uneven, same) == Interval(0.0, -0.5, 0.5)
