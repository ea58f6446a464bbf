"""The normaliser by hand and against numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis.strategies import integers, sampled_from
from torch.testing import assert_close

from reasontrain.algo.token_selection.scores.normalise import finite, quantile, span_of
from reasontrain.types import RunError

NAN = float("nan")


def doubles(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def test_clip_then_min_max_by_hand():
    # values 1 2 3 4 9; the 0.75 quantile sits at place 0.75 * 4 = 3, which is 4: 9 is clipped to 4,
    # and 1..4 become 0..1
    value_BT = torch.tensor([[1.0, 2.0, NAN], [3.0, 4.0, 9.0]])
    among_BT = torch.tensor([[True, True, False], [True, True, True]])
    span = span_of(value_BT, among_BT, clip_quantile=0.75)
    assert (float(span.low_S1), float(span.high_S1)) == (1.0, 4.0)
    assert_close(
        span.normalise(value_BT)[among_BT],
        torch.tensor([0, 1 / 3, 2 / 3, 1, 1], dtype=torch.float64),
        rtol=0,
        atol=1e-15,
    )


def test_quantile_between_two_values():  # place 0.5 * 3 = 1.5, halfway from 2 to 5
    assert quantile(
        doubles([5.0, 1.0, 2.0, 8.0]), torch.ones(1, 4, dtype=torch.bool), 0.5
    ).tolist() == [3.5]


def test_each_rollout_has_its_own_span_in_rollout_scope():
    value_BT = torch.tensor([[1.0, 2.0, 3.0], [10.0, 30.0, NAN], [NAN, NAN, NAN]])
    among_BT = ~value_BT.isnan()
    span = span_of(value_BT, among_BT, scope="rollout")
    assert span.low_S1.tolist() == [[1], [10], [0]]
    assert span.high_S1.tolist() == [[3], [30], [0]]
    assert_close(
        span.normalise(value_BT.nan_to_num(0)),
        doubles([0, 0.5, 1], [0, 1, 0], [0, 0, 0]),
        rtol=0,
        atol=0,
    )


def test_constant_evidence_becomes_zero():
    value_BT = torch.full((2, 3), 0.7)
    assert span_of(value_BT, torch.ones(2, 3, dtype=torch.bool)).normalise(value_BT).tolist() == [
        [0, 0, 0],
        [0, 0, 0],
    ]


def test_values_outside_a_given_span_stay_in_the_unit_interval():
    span = span_of(doubles([1.0, 3.0]), torch.ones(1, 2, dtype=torch.bool))
    assert span.normalise(doubles([0.0, 2.0, 9.0])).tolist() == [[0.0, 0.5, 1.0]]


@given(seed=integers(0, 10_000), share=sampled_from([0.0, 0.02, 0.5, 0.98, 1.0]))
@settings(max_examples=50, deadline=None)
def test_quantile_equals_numpy_on_the_chosen(seed, share):
    draw = torch.Generator().manual_seed(seed)
    value_BT = torch.randn(4, 9, generator=draw, dtype=torch.float64)
    among_BT = torch.rand(4, 9, generator=draw) < 0.6
    found = quantile(value_BT.masked_fill(~among_BT, NAN), among_BT, share).tolist()
    for got, value_T, among_T in zip(found, value_BT, among_BT, strict=True):
        expected = np.quantile(value_T[among_T].numpy(), share) if among_T.any() else 0.0
        assert got == pytest.approx(expected, rel=0, abs=1e-14)


def test_finite_ignores_what_was_not_chosen_and_drops_the_graph():
    value_BT = torch.tensor([[NAN, 1.5, float("inf")]], requires_grad=True)
    found = finite(value_BT, torch.tensor([[False, True, False]]), "entropy")
    assert found.tolist() == [[0.0, 1.5, 0.0]]
    assert found.dtype == torch.float64
    assert not found.requires_grad


@pytest.mark.parametrize("broken", [NAN, float("inf"), -float("inf")])
def test_finite_refuses_a_broken_response_token(broken):
    with pytest.raises(
        RunError, match=r"'kl_reverse' is NaN or infinite at 1 of 2 response tokens"
    ):
        finite(
            torch.tensor([[broken, 1.0, 2.0]]), torch.tensor([[True, True, False]]), "kl_reverse"
        )
