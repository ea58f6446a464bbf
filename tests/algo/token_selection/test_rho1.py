"""Rho-1 by hand: excess loss over a better model, ranked over the whole step."""

from __future__ import annotations

import pytest

from reasontrain.algo.token_selection.rho1 import Rho1
from reasontrain.types import RunError

NAN = float("nan")


def test_what_the_reference_finds_easier_is_kept(steps):
    # losses now 2 1 .5 | 3 .25 1, of the reference 1 1 .25 | .5 .5 2: excess 1 0 .25 | 2.5 -.25 -1,
    # of which half are 3 of 6
    now = [[NAN, -2.0, -1.0, -0.5], [-3.0, -0.25, -1.0, NAN]]
    reference = [[NAN, -1.0, -1.0, -0.25], [-0.5, -0.5, -2.0, NAN]]
    batch = steps.of([[1, 2, 2, 2], [2, 2, 2, 0]], old_logp=now, ref_logp=reference)
    assert Rho1(keep_ratio=0.5)(batch).tolist() == [[0, 1, 0, 1], [1, 0, 0, 0]]
    assert Rho1(keep_ratio=0.1)(batch).tolist() == [[0, 0, 0, 0], [1, 0, 0, 0]]  # at least one
    assert Rho1(keep_ratio=1.0)(batch).tolist() == batch.is_response_BT.float().tolist()


def test_equals_go_by_rollout_and_position(steps):
    batch = steps.of(
        [[2, 2], [2, 2]], rollouts=[8, 3], old_logp=[[-1.0] * 2] * 2, ref_logp=[[-1.0] * 2] * 2
    )
    assert Rho1(keep_ratio=0.75)(batch).tolist() == [[1, 0], [1, 1]]


def test_evidence_that_is_not_finite_stops_the_run(steps):
    with pytest.raises(RunError, match="evidence 'ref_logp' is NaN"):
        Rho1()(steps.of([[2, 2]], old_logp=[[-1.0, -1.0]], ref_logp=[[-1.0, NAN]]))
