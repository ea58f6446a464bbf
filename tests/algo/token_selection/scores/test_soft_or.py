"""Soft-OR's algebra and the worked examples of overconfidence."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis.strategies import floats
from torch.testing import assert_close

from reasontrain.algo.token_selection.scores.soft_or import overconfidence, soft_or

unit = floats(0, 1)


def one(value: float) -> torch.Tensor:
    return torch.tensor([[value]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("h", "d", "expected"),
    [(0, 0, 0), (0, 0.7, 0.7), (0.7, 0, 0.7), (0.4, 0.5, 0.7), (1, 0.3, 1), (0.3, 1, 1)],
)
def test_soft_or_by_hand(h, d, expected):  # (0.4, 0.5): 0.4 + 0.5 - 0.2
    assert_close(soft_or(one(h), one(d)), one(expected), rtol=0, atol=1e-15)


@given(h=unit, d=unit)
@settings(max_examples=100, deadline=None)
def test_soft_or_algebra(h, d):
    s = float(soft_or(one(h), one(d)))
    assert s == pytest.approx(1 - (1 - h) * (1 - d), rel=0, abs=1e-15)
    assert max(h, d) - 1e-15 <= s <= min(1, h + d) + 1e-15
    assert s == float(soft_or(one(d), one(h)))


@pytest.mark.parametrize(
    ("kl_forward", "entropy", "expected"),
    [(5.27, 0.02, 5.24), (3.54, 0.40, 3.27), (5.58, 0.12, 5.44)],
)
def test_overconfidence_is_near_the_papers_examples(kl_forward, entropy, expected):
    # The paper's entropies are in nats and its normaliser is not given; the three imply 3.5, 5.2
    # and 4.8 nats. At 5 nats all three come out within 0.014 (5.2489, 3.2568, 5.4461): a check of
    # sanity, not of digits.
    assert_close(
        overconfidence(one(kl_forward), one(entropy / 5)), one(expected), rtol=0, atol=0.014
    )


def test_overconfidence_by_hand():  # 2 * (1 - 0.25); none where the student is as unsure as can be
    assert overconfidence(one(2.0), one(0.25)).item() == 1.5
    assert overconfidence(one(2.0), one(1.0)).item() == 0.0
