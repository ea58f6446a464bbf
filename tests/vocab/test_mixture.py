"""Several teachers as one distribution, against sums over all ids and autograd in float64."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from reasontrain.types import Losses, TokenFields, TokenStats
from reasontrain.vocab import Head, MixedPart, MixedTeacher, Teacher, fused, measure
from tests.vocab.test_top_k import normal

NUM, WIDTH = 7, 9
NAMES = ("kl_reverse", "kl_forward", "jsd:0.3")
T = 0.7
CHOICE = (torch.tensor([0, 2, 3, 6]), torch.tensor([1, 4, 5]))
EVERY = torch.arange(NUM)


def parts() -> list[MixedPart]:
    """Two teachers of other widths than the student, one with a softcap and a bias."""
    first = Head(normal(WIDTH, 4, seed=2), softcap=3.0)
    second = Head(normal(WIDTH + 2, 5, seed=3), bias_V=normal(WIDTH + 2, seed=4))
    return [
        MixedPart(normal(NUM, 4, seed=5), first, EVERY),
        MixedPart(normal(NUM, 5, seed=6), second, EVERY),
    ]


def mixed(weights: tuple[float, float] = (0.75, 0.25)) -> MixedTeacher:
    both = zip(parts(), weights, strict=True)
    return MixedTeacher(tuple(replace(part, log_weight=math.log(w)) for part, w in both), NUM)


def chosen() -> MixedTeacher:
    """The first teacher at four positions, the second at the other three."""
    both = zip(parts(), CHOICE, strict=True)
    return MixedTeacher(
        tuple(replace(part, hidden_MD=part.hidden_MD[row_M], row_M=row_M) for part, row_M in both),
        NUM,
    )


def q_of(part: MixedPart) -> Tensor:
    """The probabilities of one teacher over the ids that all have."""
    x_NV = part.hidden_MD @ part.head.weight_VD.t()
    if part.head.bias_V is not None:
        x_NV = x_NV + part.head.bias_V
    if part.head.softcap is not None:
        x_NV = part.head.softcap * torch.tanh(x_NV / part.head.softcap)
    return torch.softmax(x_NV[:, :WIDTH] / T, -1)


def expected_q(teacher: MixedTeacher) -> Tensor:
    q_NV = torch.zeros(NUM, WIDTH, dtype=torch.float64)
    for part in teacher.parts:
        q_NV[part.row_M] += math.exp(part.log_weight) * q_of(part)
    return q_NV


def divergence(name: str, logp_NV: Tensor, q_NV: Tensor) -> Tensor:
    p_NV = logp_NV.exp()
    if name == "kl_reverse":
        return (p_NV * (logp_NV - q_NV.log())).sum(1)
    if name == "kl_forward":
        return (q_NV * (q_NV.log() - logp_NV)).sum(1)
    m_NV = 0.7 * p_NV + 0.3 * q_NV
    return 0.3 * (q_NV * (q_NV / m_NV).log()).sum(1) + 0.7 * (p_NV * (p_NV / m_NV).log()).sum(1)


@pytest.mark.parametrize("vocabulary", ["torch", "full_logits"])
@pytest.mark.parametrize("teacher", [mixed(), chosen()], ids=["mixed", "chosen"])
def test_divergences_and_gradients_are_those_of_the_mixture(
    teacher: MixedTeacher, vocabulary: str
) -> None:
    head = Head(normal(WIDTH, 3, seed=8), vocabulary=vocabulary)
    hidden_ND = normal(NUM, 3, seed=7).requires_grad_()
    loss_weight_N = torch.linspace(0.2, 1.0, NUM, dtype=torch.float64)
    loss_weight_N[2] = 0

    def objective(policy: TokenStats, batch: TokenFields) -> Losses:
        terms = [(i + 1) * policy.statistic(name) for i, name in enumerate(NAMES)]
        return Losses(loss=torch.stack(terms).sum(0))

    ids_N = torch.zeros(NUM, dtype=torch.long)
    fields = TokenFields(ids_N=ids_N, advantage_N=torch.zeros(NUM))
    # Chunks of 3 positions begin and end between the positions of either teacher.
    result = fused(
        hidden_ND,
        head,
        fields,
        loss_weight_N,
        objective,
        temperature=T,
        teacher=teacher,
        chunk=3,
    )
    result.loss.backward()
    gradient_ND = hidden_ND.grad
    assert gradient_ND is not None

    again_ND = hidden_ND.detach().clone().requires_grad_()
    logp_NV = torch.log_softmax(again_ND @ head.weight_VD.t() / T, -1)
    q_NV = expected_q(teacher)
    assert_close(q_NV.sum(1), torch.ones(NUM, dtype=torch.float64))
    values = {name: divergence(name, logp_NV, q_NV) for name in NAMES}
    total = sum((i + 1) * value for i, value in enumerate(values.values()))
    (loss_weight_N * total).sum().backward()
    assert_close(result.loss.detach(), (loss_weight_N * total).sum().detach())
    assert_close(gradient_ND, again_ND.grad)

    seen = measure(
        hidden_ND.detach(),
        head,
        ids_N,
        ["kl_reverse", "kl_forward", "compatibility"],
        temperature=T,
        teacher=teacher,
        chunk=2,
        top=3,
    )
    for name in ("kl_reverse", "kl_forward"):
        assert_close(seen[name], values[name].detach())
    top_NK = logp_NV.topk(3).indices
    assert_close(seen["compatibility"], q_NV.gather(1, top_NK).sum(1))


def test_one_teacher_of_a_choice_is_that_teacher() -> None:
    part = parts()[0]
    head = Head(normal(WIDTH, 3, seed=8))
    hidden_ND = normal(NUM, 3, seed=7)
    ids_N = torch.zeros(NUM, dtype=torch.long)
    alone, plain = (
        measure(hidden_ND, head, ids_N, ["kl_reverse"], teacher=teacher)["kl_reverse"]
        for teacher in (MixedTeacher((part,), NUM), Teacher(part.hidden_MD, part.head))
    )
    assert_close(alone, plain)


def test_a_position_without_a_loss_cannot_overflow_the_others() -> None:
    teacher = mixed()
    broken = teacher.parts[0].hidden_MD.clone()
    broken[2] = torch.inf
    teacher = replace(
        teacher, parts=(replace(teacher.parts[0], hidden_MD=broken), *teacher.parts[1:])
    )
    loss_weight_N = torch.ones(NUM, dtype=torch.float64)
    loss_weight_N[2] = 0
    hidden_ND = normal(NUM, 3, seed=7).requires_grad_()
    fields = TokenFields(ids_N=torch.zeros(NUM, dtype=torch.long), advantage_N=torch.zeros(NUM))
    result = fused(
        hidden_ND,
        Head(normal(WIDTH, 3, seed=8)),
        fields,
        loss_weight_N,
        lambda policy, batch: Losses(loss=policy.statistic("kl_reverse")),
        teacher=teacher,
    )
    result.loss.backward()
    assert hidden_ND.grad is not None
    assert torch.isfinite(hidden_ND.grad).all()
    assert (hidden_ND.grad[2] == 0).all()
