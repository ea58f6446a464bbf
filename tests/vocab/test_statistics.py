"""Evidence from the vocabulary, and the head's own logits."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from reasontrain.types import UserError
from reasontrain.vocab import Head, Teacher, Vocabulary, measure


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


MORE = ("rank", "entropy_top20", "teacher_entropy", "teacher_logp", "teacher_rank_of_argmax")


def place_of(logs_NV: Tensor, ids_N: Tensor) -> Tensor:
    """Position of each id in its row, likeliest first, from 1."""
    order_NV = logs_NV.argsort(1, descending=True)
    return ((order_NV == ids_N[:, None]).int().argmax(1) + 1).double()


def disagreement(logp_S: Tensor, logq_S: Tensor, num: int) -> Tensor:
    """KL(q || p) over the ids that either has among its `num` likeliest."""
    union = sorted({*logp_S.topk(num).indices.tolist(), *logq_S.topk(num).indices.tolist()})
    p_S, q_S = (logs[union].exp() / logs[union].exp().sum() for logs in (logp_S, logq_S))
    return (q_S * (q_S / p_S).log()).sum()


@pytest.mark.parametrize(("student_width", "teacher_width"), [(20, 20), (23, 20), (20, 23)])
@pytest.mark.parametrize("chunk", [None, 4])
def test_all_evidence_equals_naive_float64(
    student_width: int, teacher_width: int, chunk: int | None
):
    hidden_ND, weight_VD, teacher_ND, teacher_VD = (
        normal(9, 4),
        normal(student_width, 4),
        normal(9, 3),
        normal(teacher_width, 3),
    )
    ids_N = torch.arange(9)
    names = ("logp", "entropy", "kl_reverse", "kl_forward", "compatibility", "disagreement", *MORE)
    head, teacher = (
        Head(weight_VD.requires_grad_(), scale=0.5),
        Teacher(teacher_ND, Head(teacher_VD, softcap=3.0)),
    )
    found = measure(
        hidden_ND, head, ids_N, names, temperature=0.8, teacher=teacher, chunk=chunk, top=5
    )
    logp_NV = (hidden_ND.double() @ weight_VD.double().T * 0.5 / 0.8).log_softmax(-1)
    own_NS = logp_NV[:, :20].log_softmax(-1)
    logq_NS = (3 * torch.tanh(teacher_ND.double() @ teacher_VD.double().T / 3) / 0.8)[
        :, :20
    ].log_softmax(-1)
    top_NK = own_NS.topk(5).indices
    likeliest_NK = logp_NV.exp().sort(1, descending=True).values[:, :20]
    share_NK = likeliest_NK / likeliest_NK.sum(1, keepdim=True)
    expected = {
        "logp": logp_NV.gather(1, ids_N[:, None])[:, 0],
        "entropy": -(logp_NV.exp() * logp_NV).sum(1),
        "kl_reverse": (own_NS.exp() * (own_NS - logq_NS)).sum(1),
        "kl_forward": (logq_NS.exp() * (logq_NS - own_NS)).sum(1),
        "compatibility": logq_NS.exp().gather(1, top_NK).sum(1),
        "disagreement": torch.stack(
            [disagreement(p_S, q_S, 5) for p_S, q_S in zip(own_NS, logq_NS, strict=True)]
        ),
        "rank": place_of(logp_NV, ids_N),
        "entropy_top20": -(share_NK * share_NK.log()).sum(1),
        "teacher_entropy": -(logq_NS.exp() * logq_NS).sum(1),
        "teacher_logp": logq_NS.gather(1, ids_N[:, None])[:, 0],
        "teacher_rank_of_argmax": place_of(logq_NS, own_NS.argmax(1)),
    }
    assert_close(
        found,
        {name: value.detach().float() for name, value in expected.items()},
        rtol=1e-5,
        atol=1e-6,
    )
    assert not any(value.requires_grad for value in found.values())


def test_compatibility_of_a_small_vocabulary_is_one():
    teacher = Teacher(normal(3, 2), Head(normal(8, 2)))
    found = measure(
        normal(3, 4),
        Head(normal(8, 4)),
        torch.zeros(3, dtype=torch.long),
        ["compatibility"],
        teacher=teacher,
    )
    assert_close(found["compatibility"], torch.ones(3))


def test_the_teacher_is_asked_only_where_it_is_needed():
    broken = Teacher(normal(3, 2), Head(normal(8, 5)))  # its head does not fit its states
    ids_N = torch.zeros(3, dtype=torch.long)
    measure(normal(3, 4), Head(normal(8, 4)), ids_N, ["logp", "entropy"], teacher=broken)
    with pytest.raises(UserError, match="no teacher"):
        measure(normal(3, 4), Head(normal(8, 4)), ids_N, ["kl_forward"])


def test_no_rows():
    found = measure(
        normal(0, 4), Head(normal(8, 4)), torch.empty(0, dtype=torch.long), ["logp", "entropy"]
    )
    assert {name: value.shape for name, value in found.items()} == {"logp": (0,), "entropy": (0,)}


def test_divergences_are_never_negative_though_the_models_agree():
    hidden_ND, weight_VD = normal(200, 8), normal(500, 8)
    teacher = Teacher(hidden_ND + 1e-4 * normal(200, 8), Head(weight_VD))
    found = measure(
        hidden_ND,
        Head(weight_VD),
        torch.zeros(200, dtype=torch.long),
        ["kl_reverse", "kl_forward"],
        teacher=teacher,
    )
    assert min(value.min() for value in found.values()) >= 0


def test_logits_have_transforms_and_no_temperature():
    hidden_ND, weight_VD, bias_V = normal(3, 4), normal(8, 4).requires_grad_(), normal(8)
    found_NV = Head(weight_VD, bias_V, scale=1.5, softcap=2.0).logits(hidden_ND)
    assert_close(found_NV, 2 * torch.tanh(1.5 * (hidden_ND @ weight_VD.T + bias_V) / 2).detach())
    assert Head(weight_VD.bfloat16()).logits(hidden_ND.bfloat16()).dtype == torch.float32


def test_ids_of_equal_probability_have_the_same_rank() -> None:
    # logits 2, 1, 1, 0: the two in the middle are both second, and the last is fourth
    head = Head(torch.eye(4))
    logits_NV = torch.tensor([[2.0, 1.0, 1.0, 0.0]]).expand(4, 4)
    ranks = [
        measure(logits_NV, replace(head, vocabulary=backend), torch.arange(4), ["rank"])["rank"]
        for backend in ("torch", "full_logits")
    ]
    assert [rank.tolist() for rank in ranks] == [[1, 2, 2, 4]] * 2


@pytest.mark.parametrize("backend", ["torch", "full_logits"])
def test_an_id_that_the_teacher_lacks_has_no_probability_there(backend: Vocabulary) -> None:
    teacher = Teacher(normal(2, 3), Head(normal(5, 3)))
    ids_N = torch.tensor([4, 5])
    head = Head(normal(7, 4), vocabulary=backend)
    logq_N = measure(normal(2, 4), head, ids_N, ["teacher_logp"], teacher=teacher)["teacher_logp"]
    assert logq_N[0] > -100
    assert logq_N[1] == -1e30
