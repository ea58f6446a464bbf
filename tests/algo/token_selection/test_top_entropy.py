"""Top entropy over the step, by hand."""

from __future__ import annotations

import pytest

from reasontrain.algo.token_selection import TopEntropy
from reasontrain.types import RunError

NAN = float("nan")


def test_the_most_uncertain_tokens_of_the_step_are_kept(steps):
    # 6 response tokens, floor(0.5 * 6) = 3: 0.9, 0.8 and one of the three 0.7s: rollout 4 is before
    # 8, its position 2 before 3
    batch = steps.of(
        [[1, 2, 2, 0], [1, 2, 2, 2], [1, 4, 2, 3]],
        [8, 4, 6],
        entropy=[[9, 0.7, 0.1, 9], [9, 0.7, 0.7, 0.8], [NAN, 9, 0.9, 9]],
    )
    assert TopEntropy(keep_ratio=0.5)(batch).tolist() == [[0, 0, 0, 0], [0, 1, 0, 1], [0, 0, 1, 0]]


def test_at_least_one_token_is_kept(steps):
    batch = steps.of([[1, 2, 2]], entropy=[[0.0, 0.2, 0.3]])
    assert TopEntropy(keep_ratio=0.01)(batch).tolist() == [[0, 0, 1]]


@pytest.mark.parametrize("broken", [NAN, float("inf")])
def test_broken_evidence_stops_the_run(steps, broken):
    batch = steps.of([[1, 2, 2]], entropy=[[0.0, broken, 0.3]])
    with pytest.raises(RunError, match=r"'entropy' is NaN or infinite at 1 of 2 response tokens"):
        TopEntropy()(batch)
