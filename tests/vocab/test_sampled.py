"""The reverse KL from the sampled token alone: exact in expectation, worked over all tokens."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from reasontrain.types import Losses, TokenFields, TokenStats, UserError
from reasontrain.vocab import Head, SampledTeacher, fused, measure
from tests.vocab.test_top_k import normal

WIDTH = 6


def reverse(policy: TokenStats, batch: TokenFields) -> Losses:
    return Losses(loss=policy.kl_reverse_N, stats={"divergence": policy.kl_reverse_N})


@pytest.mark.parametrize("vocabulary", ["torch", "full_logits"])
def test_its_expectation_is_the_divergence_and_its_gradient(vocabulary: str) -> None:
    """Every token of one position, weighted with its probability."""
    logits_V = normal(WIDTH, seed=2)
    logq_V = torch.log_softmax(normal(WIDTH, seed=3), -1)
    logp_V = torch.log_softmax(logits_V, -1)
    hidden_ND = logits_V.expand(WIDTH, WIDTH).clone().requires_grad_()
    head = Head(torch.eye(WIDTH, dtype=torch.float64), vocabulary=vocabulary)
    fields = TokenFields(ids_N=torch.arange(WIDTH), advantage_N=torch.zeros(WIDTH))
    teacher = SampledTeacher(logq_V)
    result = fused(hidden_ND, head, fields, logp_V.exp(), reverse, teacher=teacher, chunk=4)
    result.loss.backward()
    again_V = logits_V.clone().requires_grad_()
    again_logp_V = torch.log_softmax(again_V, -1)
    expected = (again_logp_V.exp() * (again_logp_V - logq_V)).sum()
    expected.backward()
    assert_close(result.loss.detach(), expected.detach())
    assert hidden_ND.grad is not None
    assert_close(hidden_ND.grad.sum(0), again_V.grad)
    # Of each token alone: k d log p(y), by hand.
    gap_N = logp_V - logq_V
    own_NV = torch.eye(WIDTH, dtype=torch.float64) - logp_V.exp()
    assert_close(hidden_ND.grad, (logp_V.exp() * gap_N)[:, None] * own_NV)
    assert_close(result.stats["divergence"], gap_N.sum())
    assert (gap_N < 0).any()  # nothing clamps a single estimate
    names = ["kl_reverse", "logp", "teacher_logp", "rank", "entropy_top20"]
    seen = measure(hidden_ND.detach(), head, fields.ids_N, names, teacher=teacher)
    assert_close(seen["kl_reverse"], gap_N)
    assert_close(seen["logp"], logp_V)
    assert_close(seen["teacher_logp"], logq_V)
    # the student's own statistics need no teacher: a rank by sorting, and H over fewer ids than 20
    assert seen["rank"].long().tolist() == (logp_V.argsort(descending=True).argsort() + 1).tolist()
    assert_close(seen["entropy_top20"], -(logp_V.exp() * logp_V).sum().expand(WIDTH))
    with pytest.raises(UserError, match="only the reverse KL can be estimated"):
        measure(hidden_ND.detach(), head, fields.ids_N, ["kl_forward"], teacher=teacher)
    with pytest.raises(UserError, match="only the reverse KL can be estimated"):
        measure(hidden_ND.detach(), head, fields.ids_N, ["compatibility"], teacher=teacher)
    with pytest.raises(UserError, match="only the reverse KL can be estimated"):
        measure(hidden_ND.detach(), head, fields.ids_N, ["teacher_entropy"], teacher=teacher)
