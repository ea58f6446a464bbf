"""Every choice of `vocabulary` gives the same: fused, logp, measure and soft through a Head,
against naive float64.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from reasontrain.algo.objectives import SoftReinforce
from reasontrain.types import TokenFields, UserError
from reasontrain.vocab import (
    EmbeddingBasis,
    FedEmbeddings,
    Head,
    SoftScoring,
    Teacher,
    Vocabulary,
    fused,
    logp,
    measure,
    soft,
)
from tests.vocab.test_fused import (
    TRANSFORMS,
    Case,
    Weighted,
    assert_same,
    naive_logits,
    naive_statistic,
)

pytestmark = pytest.mark.filterwarnings(
    "ignore:invalid value encountered in subtract"
)  # Triton's interpreter, of -inf - -inf

NAMES = ("logp", "entropy", "kl_reverse", "kl_forward", "jsd:0.3", "jsd:1.0")

MEASURED = (
    *NAMES[:4],
    "compatibility",
    "disagreement",
    "rank",
    "entropy_top20",
    "teacher_entropy",
    "teacher_logp",
    "teacher_rank_of_argmax",
)


@pytest.fixture(params=["auto", "torch", "triton", "full_logits"])
def vocabulary(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Vocabulary:
    if request.param == "triton":
        pytest.importorskip("triton", reason="Triton is for Linux")
        if torch.cuda.is_available():
            pytest.skip(
                "these tensors lie on the CPU, and kernels are compiled here; "
                "test_kernels.py runs them"
            )
        monkeypatch.setattr("reasontrain.vocab.triton_backend.TILE", 8)
    return request.param


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_fused_equals_naive_float64(vocabulary: Vocabulary, transform: str) -> None:
    case = Case(transform=TRANSFORMS[transform], bias=True, num_rows=4)
    case.head = replace(case.head, vocabulary=vocabulary)
    assert_same(
        case.fused(Weighted(NAMES), chunk=3, temperature=0.7),
        case.naive(Weighted(NAMES), temperature=0.7),
    )


@pytest.mark.parametrize(("width", "teacher_width"), [(14, 11), (11, 14)])
def test_heads_of_two_widths(vocabulary: Vocabulary, width: int, teacher_width: int) -> None:
    case = Case(width=width, teacher_width=teacher_width)
    case.head = replace(case.head, vocabulary=vocabulary)
    assert_same(case.fused(Weighted(NAMES)), case.naive(Weighted(NAMES)))


def test_rows_without_a_coefficient_may_hold_anything(vocabulary: Vocabulary) -> None:
    case = Case(bias=True, num_rows=4)
    case.head = replace(case.head, vocabulary=vocabulary)
    with torch.no_grad():
        case.loss_weight_N[1], case.hidden_ND[1], case.teacher.hidden_ND[1] = 0, 3e38, torch.nan
    loss, stats, gradients = case.fused(Weighted(NAMES))
    rows = torch.tensor([0, 2, 3])
    part = Case(bias=True, num_rows=4)
    part.hidden_ND, part.ids_N, part.loss_weight_N = (
        case.hidden_ND.detach()[rows].requires_grad_(),
        case.ids_N[rows],
        case.loss_weight_N[rows],
    )
    part.teacher, part.num_rows = Teacher(case.teacher.hidden_ND[rows], case.teacher.head), 3
    part.leaves = [part.hidden_ND, *part.leaves[1:]]
    expected = part.naive(Weighted(NAMES))
    assert_same((loss, stats, [gradients[0][rows], *gradients[1:]]), expected)
    assert not gradients[0][1].any()


def test_no_rows_is_a_zero_that_runs_backward(vocabulary: Vocabulary) -> None:
    case = Case(num_rows=0, bias=True)
    case.head = replace(case.head, vocabulary=vocabulary)
    loss, stats, gradients = case.fused(Weighted(NAMES))
    assert loss == 0
    assert not any(stats.values())
    assert not any(g.any() for g in gradients)


def test_masked_ids_and_agreeing_models(vocabulary: Vocabulary) -> None:
    case = Case(bias=True, num_rows=4)
    with torch.no_grad():
        case.bias_V[9:] = -torch.inf
    case.ids_N %= 9
    head = replace(case.head, vocabulary=vocabulary)
    case.head, case.teacher = (
        head,
        Teacher(case.hidden_ND.detach() * (1 + 1e-5), replace(head, bias_V=case.bias_V.detach())),
    )
    _, stats, gradients = case.fused(Weighted(NAMES))
    assert all(0 <= stats[name] < 1e-5 for name in NAMES[2:])
    assert all(g.isfinite().all() for g in gradients)
    cut = Head(case.weight_VD[:9], case.bias_V[:9])
    teacher = Teacher(
        case.teacher.hidden_ND, Head(case.teacher.head.weight_VD[:9], case.teacher.head.bias_V[:9])
    )
    run = (case.columns, case.loss_weight_N, Weighted(NAMES[:2]))
    part = torch.autograd.grad(
        fused(case.hidden_ND, cut, *run, teacher=teacher).loss, case.hidden_ND
    )
    full = torch.autograd.grad(
        fused(case.hidden_ND, head, *run, teacher=case.teacher).loss, case.hidden_ND
    )
    assert_close(full, part, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("teacher_width", [11, 9])
@pytest.mark.parametrize("transform", ["plain", "both"])
def test_rows_beyond_the_tokenizer_have_no_probability_and_no_gradient(
    vocabulary: Vocabulary, transform: str, teacher_width: int
) -> None:
    """As if the heads ended with their 9 tokens, and whatever the other rows hold."""
    case = Case(width=11, teacher_width=teacher_width, bias=True, transform=TRANSFORMS[transform])
    case.ids_N %= 9
    padded = replace(case.head, vocabulary=vocabulary, num_tokens=9)
    teacher = case.teacher
    padded_teacher = Teacher(teacher.hidden_ND, replace(teacher.head, num_tokens=9))
    weight_VD, bias_V = case.weight_VD, case.bias_V
    cut = replace(case.head, weight_VD=weight_VD[:9], bias_V=bias_V[:9])
    cut_teacher = Teacher(
        teacher.hidden_ND,
        replace(
            teacher.head,
            weight_VD=teacher.head.weight_VD[:9],
            bias_V=teacher.head.bias_V[:9],
        ),
    )
    objective = Weighted(NAMES)
    results = []
    for head, other in ((padded, padded_teacher), (cut, cut_teacher)):
        names = MEASURED
        loss = fused(
            case.hidden_ND,
            head,
            case.columns,
            case.loss_weight_N,
            objective,
            teacher=other,
            chunk=3,
        ).loss
        logp_N = logp(case.hidden_ND, head, case.ids_N)
        leaves = (case.hidden_ND, weight_VD, bias_V)
        results.append(
            [
                loss.detach(),
                *torch.autograd.grad(loss, leaves),
                logp_N.detach(),
                *torch.autograd.grad(logp_N.sum(), leaves),
                *measure(case.hidden_ND, head, case.ids_N, names, teacher=other, top=3).values(),
            ]
        )
    assert_close(*results, rtol=1e-5, atol=2e-5)
    assert not results[0][2][9:].any()
    assert not results[0][6][9:].any()
    logits_NV = padded.logits(case.hidden_ND)
    assert bool((logits_NV[:, 9:] == -torch.inf).all())
    assert bool(logits_NV[:, :9].isfinite().all())


@pytest.mark.parametrize("chunk", [None, 2])
def test_logp_equals_naive_float64(vocabulary: Vocabulary, chunk: int | None) -> None:
    case = Case(bias=True, transform=TRANSFORMS["both"])
    head = replace(case.head, vocabulary=vocabulary)
    logp_N = logp(case.hidden_ND, head, case.ids_N, temperature=0.7, chunk=chunk)
    # a mean's slope is one number in memory, whatever the rows
    found = logp_N.detach(), torch.autograd.grad(logp_N.mean() * 7, case.leaves)
    case.loss_weight_N = torch.ones(7)
    leaves = [leaf.detach().double().requires_grad_() for leaf in case.leaves]
    logits_NV = naive_logits(leaves[0], Head(leaves[1], leaves[2], head.scale, head.softcap)) / 0.7
    expected_N = naive_statistic("logp", logits_NV, logits_NV, case.ids_N)
    expected = expected_N.detach(), torch.autograd.grad(expected_N.sum(), leaves)
    assert_close(found, expected, rtol=1e-5, atol=2e-5, check_dtype=False)


def test_measure_equals_the_closed_form(vocabulary: Vocabulary) -> None:
    case = Case(bias=True, transform=TRANSFORMS["both"], teacher_width=9)
    for teacher in (case.teacher, Case(bias=True).teacher):
        run = (case.ids_N, MEASURED)
        expected = measure(
            case.hidden_ND.double(),
            _double(case.head),
            *run,
            teacher=_doubled(teacher),
            temperature=0.7,
            top=3,
        )
        head = replace(case.head, vocabulary=vocabulary)
        found = measure(
            case.hidden_ND, head, *run, teacher=teacher, temperature=0.7, top=3, chunk=4
        )
        assert_close(found, expected, rtol=1e-5, atol=2e-5, check_dtype=False)
        assert not any(value.requires_grad for value in found.values())


def _double(head: Head) -> Head:
    return replace(
        head,
        weight_VD=head.weight_VD.detach().double(),
        bias_V=None if head.bias_V is None else head.bias_V.double(),
    )


def _doubled(teacher: Teacher) -> Teacher:
    return Teacher(teacher.hidden_ND.double(), _double(teacher.head))


def test_a_divergence_without_a_teacher_is_the_users_to_mend(vocabulary: Vocabulary) -> None:
    case = Case()
    head = replace(case.head, vocabulary=vocabulary)
    with pytest.raises(UserError, match="name one under `teacher`"):
        fused(case.hidden_ND, head, case.columns, case.loss_weight_N, Weighted(("kl_reverse",)))


@pytest.mark.parametrize(
    "scoring",
    [
        SoftScoring(),
        SoftScoring(reduction="mean"),
        SoftScoring(tau_grad=2.0),
        SoftScoring(detach_mixture_embedding=True),
    ],
    ids=str,
)
@pytest.mark.parametrize("softcap", [None, 3.0])
def test_soft_tokens_whole_or_in_chunks(scoring: SoftScoring, softcap: float | None) -> None:
    draw = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    leaves = [leaf.requires_grad_() for leaf in (normal(5, 4), normal(11, 4), normal(11, 4))]
    fed, columns = (
        FedEmbeddings(normal(5, 4), 0.5, 0.33),
        TokenFields(ids_N=torch.zeros(5, dtype=torch.long), advantage_N=normal(5)),
    )
    loss_weight_N = torch.tensor([0.5, 0.0, 1.0, 0.2, 2.0], dtype=torch.float64)
    found = []
    for choice in ("torch", "full_logits"):
        head, basis = (
            Head(leaves[1], None, 1.3, softcap, vocabulary=choice),
            EmbeddingBasis(leaves[2], 9, scale=1.7),
        )
        result = soft(
            leaves[0], head, basis, fed, columns, loss_weight_N, SoftReinforce(), scoring, chunk=2
        )
        wanted = [
            leaf for leaf in leaves if leaf is not leaves[2] or not scoring.detach_mixture_embedding
        ]
        found.append(
            (result.loss.detach(), dict(result.stats), torch.autograd.grad(result.loss, wanted))
        )
    assert_close(*found, rtol=1e-10, atol=1e-10)
