"""The tokens that are held, and the loss, by hand."""

import math
from dataclasses import replace

import torch
from torch import tensor
from torch.testing import assert_close

from reasontrain.algo.objectives import KlCov
from reasontrain.types import Batch, TokenFields, TokenStats

NAN = float("nan")


def test_the_tokens_of_the_greatest_covariance_are_held() -> None:
    """Advantages 2, 2, -1, -1 and log-probs -1, -3, -2, -6: terms 3, 0, -1.5 and 4.5."""
    zeros_B = torch.zeros(2)
    batch = Batch(
        ids_BT=torch.zeros(2, 4, dtype=torch.long),
        kind_BT=tensor([[1, 2, 2, 0], [1, 2, 4, 2]]),
        rollout_B=torch.arange(2),
        group_B=torch.zeros(2, dtype=torch.long),
        reward_B=zeros_B,
        advantage_B=tensor([2.0, -1.0]),
        evidence={"old_logp": tensor([[NAN, -1.0, -3.0, NAN], [NAN, -2.0, NAN, -6.0]])},
    )
    all_BT = batch.is_response_BT.float()
    held_BT = KlCov(share=0.5, old_kl=0.3).penalty(batch, all_BT)  # half of four tokens
    assert_close(held_BT, tensor([[0, 0.3, 0, 0], [0, 0, 0, 0.3]]))
    assert KlCov().penalty(batch, all_BT).nonzero().tolist() == [[1, 3]]  # at least one
    assert torch.equal(
        KlCov(share=0.5).penalty(batch.take(tensor([1, 0])), all_BT.flip(0)),
        KlCov(share=0.5).penalty(batch, all_BT).flip(0),
    )
    nothing = replace(batch, kind_BT=torch.ones_like(batch.kind_BT))
    assert not KlCov().penalty(nothing, all_BT).any()
    # Of the first rollout alone the advantages are equal, and all terms 0: the first token is held.
    first_BT = all_BT * tensor([[1.0], [0.0]])
    assert KlCov().penalty(batch, first_BT).nonzero().tolist() == [[0, 1]]


# log r = 0.5 and -0.5; the first is held by 2 |log r|: 2 * 0.5 - e^0.5 * 3 and -e^-0.5 * -1
def test_loss_by_hand() -> None:
    logp_N = tensor([-0.5, -1.0, -2.0], dtype=torch.float64).requires_grad_()
    fields = TokenFields(
        ids_N=torch.zeros(3, dtype=torch.long),
        advantage_N=tensor([3.0, -1.0, 1.0], dtype=torch.float64),
        penalty_N=tensor([2.0, 0.0, 2.0], dtype=torch.float64),
        evidence={"old_logp": tensor([-1.0, -0.5, -2.0], dtype=torch.float64)},
    )
    losses = KlCov()(TokenStats({"logp": logp_N}.__getitem__), fields)
    up, down = math.exp(0.5), math.exp(-0.5)
    expected_N = tensor([1 - 3 * up, down, -1.0], dtype=torch.float64)
    assert_close(losses.loss, expected_N)
    slope_N = torch.autograd.grad(losses.loss.sum(), logp_N)[0]
    # at log r = 0 the penalty has no slope
    assert_close(slope_N, tensor([2 - 3 * up, down, -1.0], dtype=torch.float64))
    assert losses.stats["held"].tolist() == [True, False, True]
