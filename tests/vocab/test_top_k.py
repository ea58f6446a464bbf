"""Divergences from a few ids of a teacher: worked by hand, against autograd, and against the
divergence over all ids.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis.strategies import floats, integers, sampled_from
from torch import Tensor
from torch.testing import assert_close

from reasontrain.types import Losses, TokenFields, TokenStats, UserError
from reasontrain.vocab import (
    Head,
    Tail,
    Teacher,
    TopKTeacher,
    Vocabulary,
    fused,
    measure,
    top_k,
)

NAMES = ("kl_reverse", "kl_forward", "jsd:0.3", "jsd:0.0", "jsd:1.0")
TAILS: tuple[Tail, ...] = ("bucket", "renormalise")
WIDTH = 9


def normal(*shape: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def logits_head(width: int = WIDTH, **settings: object) -> Head:
    """A head whose logits are the hidden states themselves."""
    return Head(torch.eye(width, dtype=torch.float64), **settings)


def of_q(q_NV: Tensor, ids_NK: Tensor, tail: Tail = "bucket") -> TopKTeacher:
    """The teacher q by these ids."""
    in_top_NV = torch.zeros_like(q_NV).scatter(1, ids_NK, 1.0).bool()
    rest_N = q_NV.masked_fill(in_top_NV, 0).sum(1).log()
    return TopKTeacher(ids_NK, q_NV.gather(1, ids_NK).log(), rest_N, tail)


def divergences(student_NV: Tensor, teacher: Teacher | TopKTeacher, head: Head) -> dict[str, float]:
    """Divergences at the first position, by the torch backend and by full logits."""
    ids_N = torch.zeros(len(student_NV), dtype=torch.long)
    results = [
        {name: float(policy.statistic(name)[0]) for name in NAMES}
        for vocabulary in ("torch", "full_logits")
        for policy in [caught(student_NV, replace(head, vocabulary=vocabulary), ids_N, teacher)]
    ]
    assert results[0] == pytest.approx(results[1], abs=1e-12)
    return results[0]


def caught(
    student_NV: Tensor, head: Head, ids_N: Tensor, teacher: Teacher | TopKTeacher
) -> TokenStats:
    """The statistics that an objective sees."""
    values: dict[str, Tensor] = {}

    def objective(policy: TokenStats, batch: TokenFields) -> Losses:
        values.update({name: policy.statistic(name).detach().clone() for name in NAMES})
        return Losses(loss=policy.statistic("kl_reverse"))

    fields = TokenFields(ids_N=ids_N, advantage_N=torch.zeros(len(ids_N)))
    ones_N = torch.ones(len(ids_N), dtype=student_NV.dtype)
    fused(student_NV, head, fields, ones_N, objective, teacher=teacher)
    return TokenStats(values.__getitem__)


def test_values_worked_by_hand() -> None:
    p = torch.tensor([[0.5, 0.3, 0.2]], dtype=torch.float64)
    q = torch.tensor([[0.6, 0.3, 0.1]], dtype=torch.float64)
    head = logits_head(3)
    # the likeliest id and a bucket: P = (.5, .5), Q = (.6, .4); beta .3: M = .7 P + .3 Q
    bucket = divergences(p.log(), of_q(q, torch.tensor([[0]])), head)
    assert bucket["kl_reverse"] == pytest.approx(0.5 * math.log(0.25 / 0.24))
    assert bucket["kl_forward"] == pytest.approx(0.6 * math.log(1.2) + 0.4 * math.log(0.8))
    to_student = 0.5 * math.log(0.5 / 0.53) + 0.5 * math.log(0.5 / 0.47)
    to_teacher = 0.6 * math.log(0.6 / 0.53) + 0.4 * math.log(0.4 / 0.47)
    assert bucket["jsd:0.3"] == pytest.approx(0.7 * to_student + 0.3 * to_teacher)
    # two ids renormalised: P = (5/8, 3/8), Q = (2/3, 1/3)
    renormalised = divergences(p.log(), of_q(q, torch.tensor([[0, 1]]), "renormalise"), head)
    expected = 5 / 8 * math.log(15 / 16) + 3 / 8 * math.log(9 / 8)
    assert renormalised["kl_reverse"] == pytest.approx(expected)
    # one id renormalised is all mass of both
    alone = divergences(p.log(), of_q(q, torch.tensor([[0]]), "renormalise"), head)
    assert alone["kl_reverse"] == pytest.approx(0, abs=1e-15)


def gradients(
    student_NV: Tensor, head: Head, teacher: Teacher | TopKTeacher, names: tuple[str, ...]
) -> tuple[Tensor, Tensor, Tensor]:
    """Loss and gradients of hidden states and weight; each statistic has a slope of its own."""

    def objective(policy: TokenStats, batch: TokenFields) -> Losses:
        terms = [(i + 1) * policy.statistic(name) for i, name in enumerate(names)]
        return Losses(loss=torch.stack([term + 0.1 * term**2 for term in terms]).sum(0))

    num = len(student_NV)
    fields = TokenFields(ids_N=torch.arange(num) % WIDTH, advantage_N=torch.zeros(num))
    loss_weight_N = torch.linspace(0.2, 1.0, num, dtype=torch.float64)
    loss_weight_N[1] = 0
    hidden_ND = student_NV.clone().requires_grad_()
    weight_VD = head.weight_VD.clone().requires_grad_()
    result = fused(
        hidden_ND,
        replace(head, weight_VD=weight_VD),
        fields,
        loss_weight_N,
        objective,
        temperature=0.8,
        teacher=teacher,
        chunk=3,
    )
    return (result.loss.detach(), *torch.autograd.grad(result.loss, [hidden_ND, weight_VD]))


PARTIAL = {
    "top": ([[0, 3], [1, 2], [8, 0], [4, 5], [6, 7], [2, 1], [3, 8]], None, None),
    "fewer at some": ([[0, -1], [-1, 2], [8, 0], [-1, -1], [6, 7], [2, -1], [3, 8]], None, None),
    "ids of no student": ([[0, 8], [7, 2], [8, 0], [8, 7], [6, 7], [2, 1], [3, 8]], None, 7),
    "a narrower teacher": ([[0, 3], [1, 2], [5, 0], [4, 5], [3, 1], [2, 1], [3, 0]], 6, None),
    "all of the student's": ([list(range(WIDTH))[i:] + list(range(i)) for i in range(7)], None, 7),
}


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("case", PARTIAL)
@pytest.mark.parametrize(
    "names", [*((name,) for name in NAMES[:3]), ("logp", "entropy", *NAMES[:3])], ids="-".join
)
def test_gradients_are_those_of_autograd_on_full_logits(
    names: tuple[str, ...], case: str, tail: Tail
) -> None:
    ids, width, num_tokens = PARTIAL[case]
    ids_NK = torch.tensor(ids)
    q_NV = (2 * normal(7, WIDTH, seed=2)).softmax(1)
    teacher = replace(of_q(q_NV, ids_NK.clamp(min=0), tail), ids_NK=ids_NK, width=width)
    head = logits_head(softcap=2.0, num_tokens=num_tokens)
    student_NV = normal(7, WIDTH)
    own, reference = (
        gradients(student_NV, replace(head, vocabulary=vocabulary), teacher, names)
        for vocabulary in ("torch", "full_logits")
    )
    assert torch.isfinite(own[1]).all()
    assert_close(own, reference, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("num_tokens", [None, WIDTH - 2])
def test_all_ids_are_the_divergence_over_the_vocabulary(tail: Tail, num_tokens: int | None) -> None:
    head = logits_head(num_tokens=num_tokens)
    teacher = Teacher(normal(7, WIDTH, seed=3), head)
    some = top_k(teacher.hidden_ND, head, WIDTH, chunk=2)
    assert some.ids_NK.shape == (7, num_tokens or WIDTH)
    some = replace(
        some,
        logq_NK=(teacher.hidden_ND / 0.8)[:, :num_tokens].log_softmax(1).gather(1, some.ids_NK),
        tail=tail,
    )
    names = ("entropy", *NAMES[:3])
    full, top = (gradients(normal(7, WIDTH), head, each, names) for each in (teacher, some))
    assert_close(top, full, rtol=1e-12, atol=1e-12)


@settings(max_examples=60)
@given(
    seed=integers(0, 10**6),
    num=integers(1, WIDTH),
    spread=floats(0.1, 8.0),
    by=sampled_from(["teacher", "student"]),
)
def test_a_bucket_is_at_most_the_divergence_over_the_vocabulary(
    seed: int, num: int, spread: float, by: str
) -> None:
    student_NV, teacher_NV = spread * normal(2, 5, WIDTH, seed=seed)
    ids_NK = (teacher_NV if by == "teacher" else student_NV).topk(num).indices
    head, ids_N = logits_head(), torch.zeros(5, dtype=torch.long)
    names = ("kl_reverse", "kl_forward")
    full, bucket = (
        measure(student_NV, head, ids_N, names, teacher=teacher)
        for teacher in (Teacher(teacher_NV, head), of_q(teacher_NV.softmax(1), ids_NK))
    )
    for name in names:
        assert (bucket[name] <= full[name] + 1e-9).all()
        if num == WIDTH:
            assert_close(bucket[name], full[name], rtol=1e-9, atol=1e-9)


def test_an_unlikely_rest_is_not_lost_to_rounding() -> None:
    # float32: 1 - sum p is 0 here, and the rest of the student is e^-30
    student_NV = torch.tensor([[30.0, -40.0, 0.0]])
    teacher = TopKTeacher(torch.tensor([[0]]), torch.tensor([[-0.5]]), torch.tensor([-0.9327521]))
    head = Head(torch.eye(3))
    (value,) = measure(
        student_NV, head, torch.zeros(1, dtype=torch.long), ["kl_forward"], teacher=teacher
    ).values()
    q = math.exp(-0.5)
    assert float(value) == pytest.approx(q * -0.5 + (1 - q) * (math.log(1 - q) + 30), rel=1e-5)


def test_the_likeliest_ids_and_the_rest_of_their_mass() -> None:
    head = logits_head(4, num_tokens=3)
    logits_NV = torch.tensor([[0.5, 0.3, 0.2, 9.0]], dtype=torch.float64).log()
    some = top_k(logits_NV, head, 2)
    assert some.ids_NK.tolist() == [[0, 1]]
    assert_close(some.logq_NK.exp(), torch.tensor([[0.5, 0.3]], dtype=torch.float64))
    assert float(some.log_rest_N.exp()) == pytest.approx(0.2)
    assert float(top_k(logits_NV, head, 9).log_rest_N.exp()) == 0
    assert top_k(logits_NV[:0], head, 2).ids_NK.shape == (0, 2)


@pytest.mark.parametrize(
    "name", ["compatibility", "disagreement", "teacher_entropy", "teacher_logp"]
)
@pytest.mark.parametrize("vocabulary", ["torch", "full_logits"])
def test_what_needs_all_ids_is_refused(name: str, vocabulary: str) -> None:
    teacher = of_q(normal(2, WIDTH).softmax(1), torch.tensor([[0], [1]]))
    head = logits_head(vocabulary=vocabulary)
    with pytest.raises(UserError, match="needs the teacher's probabilities of all ids"):
        measure(normal(2, WIDTH), head, torch.zeros(2, dtype=torch.long), [name], teacher=teacher)


@pytest.mark.parametrize("vocabulary", ["torch", "full_logits"])
def test_the_rank_of_the_students_likeliest_id_among_a_few(vocabulary: Vocabulary) -> None:
    # The teacher's ids, likeliest first, are 2, 0, 1; -1 fills up. The student's likeliest is 1, 2
    # and 4, which is third, first and none of them; of the last position two ids are known.
    ids_NK = torch.tensor([[2, 0, 1], [2, 0, 1], [2, 0, 1], [2, 0, -1]])
    logq_NK = torch.tensor([0.5, 0.2, 0.1], dtype=torch.float64).log().expand(4, 3)
    rest_N = torch.tensor([0.2, 0.2, 0.2, 0.3], dtype=torch.float64).log()
    student_NV = torch.zeros(4, 5, dtype=torch.float64)
    student_NV[range(4), [1, 2, 4, 1]] = 3.0
    head = logits_head(5, vocabulary=vocabulary)
    ranks = measure(
        student_NV,
        head,
        torch.zeros(4, dtype=torch.long),
        ["teacher_rank_of_argmax"],
        teacher=TopKTeacher(ids_NK, logq_NK, rest_N),
    )["teacher_rank_of_argmax"]
    assert ranks.tolist() == [3, 1, 4, 3]
