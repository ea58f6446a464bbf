"""Numbers by hand."""

import math

import torch
from torch import tensor
from torch.testing import assert_close

from reasontrain.algo.objectives import Nll
from reasontrain.types import TokenFields, TokenStats


def test_nll_is_minus_logp():  # p = 1/4 and 1: ln 4 and 0
    columns = TokenFields(ids_N=tensor([0, 0]), advantage_N=torch.zeros(2))
    found_N = Nll()(TokenStats({"logp": tensor([math.log(0.25), 0.0])}.__getitem__), columns).loss
    assert_close(found_N, tensor([math.log(4), 0.0]))
