"""Agreement of selections, by hand."""

from __future__ import annotations

import pytest
import torch

from reasontrain.algo.advantages import NoAdvantage
from reasontrain.data.collate import collate
from reasontrain.metrics.agreement import kept_evidence, kept_share, overlap
from reasontrain.types import Batch, Problem, Rollout


def batch() -> Batch:
    """A prompt token and four response tokens."""
    rollout = Rollout(
        problem=Problem(id="p", prompt=""),
        id=0,
        group=0,
        prompt_ids=(1,),
        response_ids=(2, 3, 4, 5),
    )
    return collate([rollout], advantage=NoAdvantage()).with_evidence(
        {
            "entropy": torch.tensor([[9.0, 1.0, 2.0, 3.0, 4.0]]),
            "kl_reverse": torch.tensor([[9.0, 0.0, 0.0, 0.0, 0.0]]),
            "old_logp": torch.tensor([[0.0, -1.0, -1.0, -1.0, -1.0]]),
        }
    )


def test_two_selections_by_hand():
    """Of {1, 2} and {2, 3, 4}, one of four tokens is in both; the prompt does not count."""
    one_BT = torch.tensor([[1.0, 1.0, 0.5, 0.0, 0.0]])
    other_BT = torch.tensor([[0.0, 0.0, 2.0, 1.0, 1.0]])
    assert overlap(batch(), one_BT, other_BT) == 0.25
    assert overlap(batch(), one_BT, one_BT) == 1
    assert kept_share(batch(), one_BT) == 0.5
    nothing_BT = torch.zeros(1, 5)
    assert overlap(batch(), nothing_BT, nothing_BT) == 1
    assert overlap(batch(), nothing_BT, one_BT) == 0


def test_shares_of_evidence_by_hand():
    """1 + 2 of 10 nats; nothing of a sum of 0, or of what may be negative."""
    one_BT = torch.tensor([[1.0, 1.0, 0.5, 0.0, 0.0]])
    assert kept_evidence(batch(), one_BT) == {"entropy": pytest.approx(0.3)}
