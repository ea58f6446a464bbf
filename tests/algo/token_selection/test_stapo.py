"""Spurious tokens by hand."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import tensor

from reasontrain.algo.token_selection import Stapo

NAN = float("nan")


def test_only_what_is_rare_certain_and_rewarded_is_left_out(steps):
    # p = e^-5 is below 0.01; of the entropies 0.1, 0.2, 1, 2, 0.1 and 0.3 the median is 0.25
    batch = steps.of(
        [[1, 2, 2, 2, 2], [1, 4, 2, 2, 0]],
        entropy=[[NAN, 0.1, 0.2, 1.0, 2.0], [NAN, 0.0, 0.1, 0.3, 9]],
        old_logp=[[NAN, -5.0, -4.0, -5.0, -1.0], [NAN, -5.0, -5.0, -1.0, -5.0]],
    )
    batch = replace(batch, advantage_B=tensor([1.0, -1.0]))
    rule = Stapo(entropy_quantile=0.5)
    assert rule(batch).tolist() == [[0, 0, 1, 1, 1], [0, 0, 1, 1, 0]]
    rewarded = replace(batch, advantage_B=tensor([0.0, 1.0]))
    assert rule(rewarded).tolist() == [[0, 1, 1, 1, 1], [0, 0, 0, 1, 0]]
    likely = replace(rule, max_probability=0.02)  # e^-4 = 0.0183
    assert likely(batch).tolist() == [[0, 0, 0, 1, 1], [0, 0, 1, 1, 0]]


def test_no_token_is_below_the_least_entropy(steps):
    batch = replace(steps.random(0), advantage_B=torch.ones(5))
    everything = Stapo(max_probability=1.0, entropy_quantile=0.0)
    assert torch.equal(everything(batch), batch.is_response_BT.float())
