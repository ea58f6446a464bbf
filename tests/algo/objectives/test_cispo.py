"""Weights by hand, and the gradient that no clip removes."""

import math

import pytest
import torch
from torch import tensor
from torch.testing import assert_close

from reasontrain.algo.objectives import Cispo
from reasontrain.types import TokenFields, TokenStats


# ratios e^0.5 = 1.6487, e^-0.5 = 0.6065 and 1; within 0.8 and 1.2: 1.2, 0.8 and 1
def test_a_clipped_ratio_weighs_the_log_prob() -> None:
    logp_N = tensor([-0.5, -1.0, -2.0], dtype=torch.float64).requires_grad_()
    batch = TokenFields(
        ids_N=torch.zeros(3, dtype=torch.long),
        advantage_N=tensor([2.0, -3.0, 1.0], dtype=torch.float64),
        evidence={"old_logp": tensor([-1.0, -0.5, -2.0], dtype=torch.float64)},
    )
    losses = Cispo(ratio_cap=1.2, ratio_floor=0.8)(TokenStats({"logp": logp_N}.__getitem__), batch)
    assert_close(losses.loss, tensor([1.2 * 2 * 0.5, -0.8 * 3, 2.0], dtype=torch.float64))
    slope_N = torch.autograd.grad(losses.loss.sum(), logp_N)[0]
    assert_close(slope_N, tensor([-2.4, 2.4, -1.0], dtype=torch.float64))
    assert losses.stats["clipped"].tolist() == [True, True, False]
    ratio_N = tensor([math.exp(0.5), math.exp(-0.5), 1.0], dtype=torch.float64)
    assert_close(losses.stats["ratio"], ratio_N)


def test_bounds_that_leave_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="ratio_floor 5 is not below ratio_cap 5"):
        Cispo(ratio_floor=5.0)
