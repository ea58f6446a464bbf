"""Numbers by hand."""

import math

import torch
from torch import tensor
from torch.testing import assert_close

from reasontrain.algo.objectives import Reinforce
from reasontrain.types import TokenFields, TokenStats


def test_minus_advantage_times_logp():  # -(2)(-0.5) = 1, -(-3)(-0.5) = -1.5; the slope is -A
    logp_N = tensor([-0.5, -0.5]).requires_grad_()
    batch = TokenFields(ids_N=tensor([0, 0]), advantage_N=tensor([2.0, -3.0]))
    losses = Reinforce()(TokenStats({"logp": logp_N}.__getitem__), batch)
    assert_close(losses.loss, tensor([1.0, -1.5]))
    assert torch.autograd.grad(losses.loss.sum(), logp_N)[0].tolist() == [-2.0, 3.0]


def test_reference_penalty():  # r = e^(-3 - -2) = 1/e: k3 = 1/e - 1 + 1 = 1/e; 2 * 2 + 0.5 / e
    batch = TokenFields(
        ids_N=tensor([0]), advantage_N=tensor([2.0]), evidence={"ref_logp": tensor([-3.0])}
    )
    losses = Reinforce(reference_kl=0.5)(TokenStats({"logp": tensor([-2.0])}.__getitem__), batch)
    assert_close(losses.loss, tensor([4 + 0.5 / math.e]))
    assert Reinforce().required_evidence == set()
    assert Reinforce(reference_kl=0.5).required_evidence == {"ref_logp"}
