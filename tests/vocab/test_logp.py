"""The recomputing log-probability of sum objectives."""

import pytest
import torch
from torch.testing import assert_close
from trl.kernels.chunked_logprob import ChunkedLogProbFunction

from reasontrain.vocab import Head, logp


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(
        *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape))
    ).requires_grad_()


@pytest.mark.parametrize("softcap", [None, 1.5])
@pytest.mark.parametrize("chunk", [None, 2])
def test_gradcheck(softcap: float | None, chunk: int | None):
    ids_N = torch.tensor([0, 6, 3, 3, 1])
    assert torch.autograd.gradcheck(
        lambda h, w, b: logp(h, Head(w, b, 0.8, softcap), ids_N, temperature=0.7, chunk=chunk),
        (draw(5, 3), draw(7, 3), draw(7)),
    )


def test_value_and_gradient_of_a_sum_over_rollouts_equal_trl():
    hidden_ND, weight_VD, bias_V = (
        draw(*shape).detach().float().requires_grad_() for shape in ((9, 4), (21, 4), (21,))
    )
    ids_N = torch.arange(9) * 2
    theirs_N = ChunkedLogProbFunction.apply(hidden_ND, weight_VD, bias_V, ids_N, 0.9, 16, 3.0, 1.2)[
        0
    ]
    mine_N = logp(hidden_ND, Head(weight_VD, bias_V, 1.2, 3.0), ids_N, temperature=0.9, chunk=4)
    assert_close(mine_N, theirs_N, rtol=1e-5, atol=1e-6)
    leaves = (hidden_ND, weight_VD, bias_V)
    mine, theirs = (
        torch.autograd.grad(torch.sigmoid(x_N[:4].sum() - x_N[4:].sum()) * 1e3, leaves)
        for x_N in (mine_N, theirs_N)
    )
    assert max(g.abs().max() for g in theirs) > 1e-3
    assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


def test_no_rows_and_a_frozen_head():
    hidden_ND, weight_VD = draw(0, 3), draw(7, 3)
    none_N = logp(hidden_ND, Head(weight_VD), torch.empty(0, dtype=torch.long))
    dhidden_ND, dweight_VD = torch.autograd.grad(none_N.sum(), (hidden_ND, weight_VD))
    assert dhidden_ND.shape == (0, 3)
    assert dweight_VD.shape == (7, 3)
    assert not dweight_VD.any()
    frozen_N = logp(draw(2, 3), Head(weight_VD.detach()), torch.tensor([1, 2]))
    frozen_N.sum().backward()
    assert weight_VD.grad is None
