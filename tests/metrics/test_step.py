"""Metrics of a step, worked by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from reasontrain.metrics.step import sampler_mismatch
from reasontrain.types import Batch, TokenKind


def test_mismatch_of_sampler_and_learner() -> None:
    """Ratios 2 and 1/2 at the two response tokens.

    k3: (2 - 1 - ln 2 + 1/2 - 1 + ln 2) / 2 = 1/4. Effective sample size: 2.5^2 / (2 (4 + 1/4)) =
    6.25 / 8.5. The prompt's token, where both log-probs are 0 or anything, does not count.
    """
    sampled_logp = torch.tensor([[0.0, -2.0, -1.0]])
    difference = torch.tensor([[9.0, math.log(2), -math.log(2)]])
    batch = Batch(
        ids_BT=torch.zeros(1, 3, dtype=torch.long),
        kind_BT=torch.tensor([[TokenKind.PROMPT, TokenKind.RESPONSE, TokenKind.RESPONSE]]),
        rollout_B=torch.arange(1),
        group_B=torch.arange(1),
        reward_B=torch.zeros(1),
        advantage_B=torch.zeros(1),
        evidence={"sampled_logp": sampled_logp, "old_logp": sampled_logp + difference},
    )
    assert sampler_mismatch(batch) == pytest.approx(
        {
            "sampler_gap_mean": math.log(2),
            "sampler_gap_max": math.log(2),
            "sampler_kl": 0.25,
            "sampler_ratio_max": 2.0,
            "sampler_ess": 6.25 / 8.5,
        }
    )
    assert sampler_mismatch(replace(batch, evidence={"sampled_logp": sampled_logp})) == {}
