"""The fused pass against naive float64 autograd, against TRL, and against closed forms worked by
hand.
"""

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from trl.kernels.chunked_divergence import ChunkedDivergenceFunction
from trl.kernels.chunked_logprob import ChunkedLogProbFunction

from reasontrain.types import Losses, TokenFields, TokenStats, UserError
from reasontrain.vocab import Head, Teacher, fused
from reasontrain.vocab.analytic import BufferPool

NAMES = ("logp", "entropy", "kl_reverse", "kl_forward", "jsd:0.0", "jsd:0.3", "jsd:0.5", "jsd:1.0")
TRANSFORMS = {
    "plain": Head(torch.empty(0, 0)),
    "scale": Head(torch.empty(0, 0), scale=0.25),
    "softcap": Head(torch.empty(0, 0), softcap=1.5),
    "both": Head(torch.empty(0, 0), scale=1.7, softcap=2.0),
}


@dataclass(frozen=True)
class Weighted:
    """A sum of statistics, squared so that the slope along each depends on its value."""

    names: tuple[str, ...]

    def __call__(self, policy: TokenStats, batch: TokenFields) -> Losses:
        terms = [(k + 1) * policy.statistic(name) for k, name in enumerate(self.names)]
        total = torch.stack([term + 0.1 * term**2 for term in terms]).sum(0)
        return Losses(loss=total, stats={name: policy.statistic(name) for name in self.names})


@dataclass
class Case:
    """Random states and heads of a student and a teacher."""

    num_rows: int = 7
    width: int = 11
    teacher_width: int = 11
    bias: bool = False
    transform: Head = TRANSFORMS["plain"]
    dtype: torch.dtype = torch.float32
    spread: float = 1.0

    def __post_init__(self) -> None:
        draw = torch.Generator().manual_seed(1)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=draw, dtype=torch.float64).to(self.dtype)

        self.hidden_ND = (normal(self.num_rows, 4) * self.spread).requires_grad_()
        self.weight_VD = normal(self.width, 4).requires_grad_()
        self.bias_V = normal(self.width).requires_grad_() if self.bias else None
        scale, softcap = self.transform.scale, self.transform.softcap
        self.head = Head(self.weight_VD, self.bias_V, scale, softcap)
        teacher_head = Head(
            normal(self.teacher_width, 3),
            normal(self.teacher_width) if self.bias else None,
            scale,
            softcap,
        )
        self.teacher = Teacher(normal(self.num_rows, 3), teacher_head)
        self.ids_N = torch.randint(self.width, (self.num_rows,), generator=draw)
        self.loss_weight_N = torch.rand(self.num_rows, generator=draw).to(self.dtype) + 0.1
        self.leaves = [
            leaf for leaf in (self.hidden_ND, self.weight_VD, self.bias_V) if leaf is not None
        ]

    @property
    def columns(self) -> TokenFields:
        return TokenFields(ids_N=self.ids_N, advantage_N=torch.zeros(self.num_rows))

    def fused(
        self, objective: Weighted, **settings: float | None
    ) -> tuple[Tensor, dict[str, Tensor], list[Tensor]]:
        found = fused(
            self.hidden_ND,
            self.head,
            self.columns,
            self.loss_weight_N,
            objective,
            teacher=self.teacher,
            **settings,
        )
        return (
            found.loss.detach(),
            dict(found.stats),
            list(torch.autograd.grad(found.loss, self.leaves)),
        )

    def naive(
        self, objective: Weighted, temperature: float = 1.0
    ) -> tuple[Tensor, dict[str, Tensor], list[Tensor]]:
        leaves = [leaf.detach().double().requires_grad_() for leaf in self.leaves]
        student_NV = naive_logits(
            leaves[0],
            Head(leaves[1], leaves[2] if self.bias else None, self.head.scale, self.head.softcap),
        )
        teacher_NU = naive_logits(self.teacher.hidden_ND.double(), self.teacher.head)
        student_NV, teacher_NU = student_NV / temperature, teacher_NU / temperature
        rows = TokenStats(lambda name: naive_statistic(name, student_NV, teacher_NU, self.ids_N))
        losses = objective(rows, self.columns)
        loss = (self.loss_weight_N.double() * losses.loss).sum()
        stats = {name: value.detach().sum() for name, value in losses.stats.items()}
        return loss.detach(), stats, list(torch.autograd.grad(loss, leaves))


def naive_logits(hidden_ND: Tensor, head: Head) -> Tensor:
    x_NV = hidden_ND @ head.weight_VD.double().T
    x_NV = head.scale * (x_NV if head.bias_V is None else x_NV + head.bias_V.double())
    return x_NV if head.softcap is None else head.softcap * torch.tanh(x_NV / head.softcap)


def naive_statistic(name: str, student_NV: Tensor, teacher_NU: Tensor, ids_N: Tensor) -> Tensor:
    logp_NV = student_NV.log_softmax(-1)
    if name == "logp":
        return logp_NV.gather(1, ids_N[:, None])[:, 0]
    if name == "entropy":
        return -(logp_NV.exp() * logp_NV).sum(-1)
    width = min(student_NV.shape[1], teacher_NU.shape[1])
    logp_NS, logq_NS = student_NV[:, :width].log_softmax(-1), teacher_NU[:, :width].log_softmax(-1)
    beta = {"kl_reverse": 1.0, "kl_forward": 0.0}.get(name)
    beta = float(name[4:]) if beta is None else beta
    logm_NS = ((1 - beta) * logp_NS.exp() + beta * logq_NS.exp()).log()
    reverse_N = (logp_NS.exp() * (logp_NS - (logq_NS if beta == 1 else logm_NS))).sum(-1)
    forward_N = (logq_NS.exp() * (logq_NS - (logp_NS if beta == 0 else logm_NS))).sum(-1)
    return {0.0: forward_N, 1.0: reverse_N}.get(beta, beta * forward_N + (1 - beta) * reverse_N)


def assert_same(found: tuple, expected: tuple, rtol: float = 1e-5, atol: float = 2e-5) -> None:
    for mine, theirs in zip(found, expected, strict=True):
        assert_close(mine, theirs, rtol=rtol, atol=atol, check_dtype=False)


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("name", NAMES)
def test_each_statistic_equals_naive_float64(name: str, transform: str):
    case = Case(transform=TRANSFORMS[transform], dtype=torch.float64, bias=True)
    objective = Weighted((name,))
    assert_same(
        case.fused(objective, chunk=3, temperature=0.7),
        case.naive(objective, temperature=0.7),
        rtol=1e-12,
        atol=1e-12,
    )


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("width", "teacher_width"), [(11, 11), (14, 11), (11, 14)])
def test_all_statistics_together_whatever_the_widths(width: int, teacher_width: int, bias: bool):
    case = Case(width=width, teacher_width=teacher_width, bias=bias, dtype=torch.float64)
    assert_same(
        case.fused(Weighted(NAMES), chunk=2), case.naive(Weighted(NAMES)), rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("name", NAMES)
def test_divergence_alone_leaves_the_wider_student_without_a_gradient_beyond(name: str):
    case = Case(width=14, teacher_width=11, dtype=torch.float64)
    assert_same(
        case.fused(Weighted((name,))), case.naive(Weighted((name,))), rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("chunk", [None, 1, 2, 3, 6, 7, 100])
def test_chunks_in_fp32(chunk: int | None):
    case = Case(bias=True, transform=TRANSFORMS["both"])
    assert_same(
        case.fused(Weighted(NAMES[:6]), chunk=chunk),
        case.naive(Weighted(NAMES[:6])),
        rtol=2e-5,
        atol=2e-5,
    )


def test_many_blocks_of_one_chunk(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("reasontrain.vocab.chunks.BLOCK_FLOATS_CPU", 22)  # two rows a block
    case = Case(dtype=torch.float64)
    assert_same(
        case.fused(Weighted(NAMES), chunk=5), case.naive(Weighted(NAMES)), rtol=1e-12, atol=1e-12
    )


def test_bfloat16_states_and_weights_are_upcast_before_anything_else():
    case = Case(dtype=torch.bfloat16, bias=True)
    case.loss_weight_N = case.loss_weight_N.float()
    loss, stats, gradients = case.fused(Weighted(NAMES[:4]))
    expected = case.naive(Weighted(NAMES[:4]))
    assert {gradient.dtype for gradient in gradients} == {torch.bfloat16}
    assert_same((loss, stats), expected[:2], rtol=1e-5, atol=1e-5)
    assert_close(
        gradients, [g.bfloat16() for g in expected[2]], rtol=2**-7, atol=1e-5
    )  # one rounding to bf16 at the end


def test_tied_head_receives_both_gradients():
    def loss_of(table_VD: Tensor, states: bool, head: bool) -> Tensor:
        hidden_ND = (
            table_VD[torch.tensor([1, 4, 4])]
            if states
            else table_VD.detach()[torch.tensor([1, 4, 4])]
        )
        columns = TokenFields(ids_N=torch.tensor([2, 0, 5]), advantage_N=torch.zeros(3))
        weight_VD = table_VD if head else table_VD.detach()
        return fused(hidden_ND, Head(weight_VD), columns, torch.ones(3), Weighted(("logp",))).loss

    table_VD = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    tied, states, head = (
        torch.autograd.grad(loss_of(table_VD, s, h), table_VD)[0]
        for s, h in [(True, True), (True, False), (False, True)]
    )
    assert_close(tied, states + head)
    assert states.abs().max() > 0.1
    assert head.abs().max() > 0.1


def test_frozen_parts_are_skipped():
    case = Case(bias=True)
    weight_VD, bias_V = case.weight_VD.detach(), case.bias_V.detach()
    run = (case.columns, case.loss_weight_N, Weighted(("entropy",)))
    loss = fused(case.hidden_ND, Head(weight_VD, bias_V), *run).loss
    (dhidden_ND,) = torch.autograd.grad(loss, [case.hidden_ND])
    assert_close(dhidden_ND, case.fused(Weighted(("entropy",)))[2][0])
    assert not fused(case.hidden_ND.detach(), Head(weight_VD, bias_V), *run).loss.requires_grad
    with torch.no_grad():
        assert not fused(case.hidden_ND, case.head, *run).loss.requires_grad


def test_incoming_gradient_multiplies():
    case = Case(dtype=torch.float64)
    doubled = (
        fused(case.hidden_ND, case.head, case.columns, case.loss_weight_N, Weighted(("logp",))).loss
        * 2
    )
    for mine, plain in zip(
        torch.autograd.grad(doubled, case.leaves), case.fused(Weighted(("logp",)))[2], strict=True
    ):
        assert_close(mine, 2 * plain)


def test_no_rows_is_a_zero_that_runs_backward():
    case = Case(num_rows=0, bias=True)
    loss, stats, gradients = case.fused(Weighted(NAMES))
    assert loss == 0
    assert set(stats) == set(NAMES)
    assert not any(stats.values())
    assert [g.shape for g in gradients] == [leaf.shape for leaf in case.leaves]
    assert not any(g.any() for g in gradients)


@pytest.mark.parametrize("size", [1e3, 1e10, 3e37])
def test_extreme_logits_never_make_nan(size: float):
    case = Case(bias=True)
    case.head = Head(case.weight_VD, (case.bias_V.detach() * size).requires_grad_())
    case.leaves = [case.hidden_ND, case.weight_VD, case.head.bias_V]
    _, stats, gradients = case.fused(Weighted(("entropy",)))
    assert stats["entropy"] == 0
    assert all(g.isfinite().all() for g in gradients)
    bounded = Weighted(("logp", "kl_reverse", "kl_forward", "jsd:0.5"))
    assert not any(g.isnan().any() for g in case.fused(bounded)[2])


def test_ids_that_are_masked_out_by_the_bias_have_no_part():
    case = Case(dtype=torch.float64, bias=True)
    with torch.no_grad():
        case.bias_V[9:] = -math.inf
    case.ids_N %= 9
    case.teacher = Teacher(case.teacher.hidden_ND, Head(case.teacher.head.weight_VD[:9]))
    cut = Case(dtype=torch.float64, bias=True)
    cut.weight_VD, cut.bias_V = cut.weight_VD[:9], case.bias_V[:9]
    cut.head, cut.ids_N, cut.teacher = Head(cut.weight_VD, cut.bias_V), case.ids_N, case.teacher
    whole = fused(
        case.hidden_ND,
        case.head,
        case.columns,
        case.loss_weight_N,
        Weighted(NAMES[:4]),
        teacher=case.teacher,
    ).loss
    part = fused(
        case.hidden_ND,
        cut.head,
        case.columns,
        case.loss_weight_N,
        Weighted(NAMES[:4]),
        teacher=case.teacher,
    ).loss
    assert_close(whole, part)
    assert_close(
        torch.autograd.grad(whole, case.hidden_ND), torch.autograd.grad(part, case.hidden_ND)
    )


def test_a_divergence_without_a_teacher_is_the_users_to_mend():
    case = Case()
    with pytest.raises(UserError, match="teacher"):
        fused(
            case.hidden_ND, case.head, case.columns, case.loss_weight_N, Weighted(("kl_reverse",))
        )


class Largest(TorchDispatchMode):
    """Remembers the largest tensor that any operation returned."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple) else (result,):
            self.numel = (
                max(self.numel, tensor.numel()) if isinstance(tensor, Tensor) else self.numel
            )
        return result


def test_nothing_vocabulary_sized_is_larger_than_a_chunk_or_kept():
    case = Case(num_rows=60, width=50, teacher_width=50)
    with Largest() as largest:
        found = fused(
            case.hidden_ND,
            case.head,
            case.columns,
            case.loss_weight_N,
            Weighted(NAMES),
            teacher=case.teacher,
            chunk=6,
        )
        dhidden_ND, dweight_VD, _ = found.loss.grad_fn.gradients
        found.loss.backward()
    assert largest.numel == 6 * 50
    assert {dhidden_ND.shape, dweight_VD.shape} == {(60, 4), (50, 4)}
    assert not found.loss.grad_fn.gradients


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize(
    ("name", "beta"), [("kl_forward", 0.0), ("kl_reverse", 1.0), ("jsd:0.3", 0.3)]
)
def test_divergence_equals_trl(name: str, beta: float, softcap: float | None):
    case = Case(
        num_rows=33,
        width=40,
        teacher_width=40,
        bias=True,
        transform=Head(torch.empty(0, 0), scale=1.3, softcap=softcap),
    )
    student, teacher = (case.hidden_ND, case.weight_VD, case.bias_V), case.teacher
    settings = (0.9, 1.3, softcap, 1.3, softcap)  # temperature, then each model's scale and softcap
    theirs_N, _ = ChunkedDivergenceFunction.apply(
        *student, teacher.hidden_ND, teacher.head.weight_VD, teacher.head.bias_V, beta, *settings
    )
    loss = (case.loss_weight_N * theirs_N).sum()

    def objective(policy: TokenStats, batch: TokenFields) -> Losses:
        return Losses(loss=policy.statistic(name))

    mine = fused(
        case.hidden_ND,
        case.head,
        case.columns,
        case.loss_weight_N,
        objective,
        teacher=teacher,
        temperature=0.9,
        chunk=10,
    ).loss
    assert_close(mine, loss, rtol=1e-5, atol=1e-6)
    assert_close(
        torch.autograd.grad(mine, case.leaves),
        torch.autograd.grad(loss, case.leaves),
        rtol=1e-4,
        atol=2e-6,
    )


@pytest.mark.parametrize("softcap", [None, 2.0])
def test_logp_and_entropy_equal_trl(softcap: float | None):
    case = Case(
        num_rows=33,
        width=40,
        bias=True,
        transform=Head(torch.empty(0, 0), scale=1.3, softcap=softcap),
    )
    logp_N, entropy_N, *_ = ChunkedLogProbFunction.apply(
        case.hidden_ND, case.weight_VD, case.bias_V, case.ids_N, 0.9, 16, softcap, 1.3
    )
    loss = (case.loss_weight_N * (2 * entropy_N - logp_N)).sum()

    def objective(policy: TokenStats, batch: TokenFields) -> Losses:
        return Losses(loss=2 * policy.entropy_N - policy.logp_N)

    mine = fused(
        case.hidden_ND,
        case.head,
        case.columns,
        case.loss_weight_N,
        objective,
        temperature=0.9,
        chunk=10,
    ).loss
    assert_close(mine, loss, rtol=1e-5, atol=1e-6)
    assert_close(
        torch.autograd.grad(mine, case.leaves),
        torch.autograd.grad(loss, case.leaves),
        rtol=1e-4,
        atol=2e-6,
    )


@pytest.mark.parametrize(("a", "b"), [(0.5, 0.5), (0.9, 0.2), (0.01, 0.99)])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_two_tokens_in_closed_form(a: float, b: float, temperature: float):
    # p = (a, 1-a) from logits T (log a, log(1-a)); with z = z_1 - z_2, da/dz = a(1-a)/T. H = -a ln
    # a - (1-a) ln(1-a), dH/da = ln((1-a)/a); R = KL(p||q), dR/da = ln(a/(1-a)) - ln(b/(1-b)); F =
    # KL(q||p), dF/da = (1-b)/(1-a) - b/a
    expected = {
        "logp": (math.log(a), 1 / a),
        "entropy": (-a * math.log(a) - (1 - a) * math.log(1 - a), math.log((1 - a) / a)),
        "kl_reverse": (
            a * math.log(a / b) + (1 - a) * math.log((1 - a) / (1 - b)),
            math.log(a / (1 - a)) - math.log(b / (1 - b)),
        ),
        "kl_forward": (
            b * math.log(b / a) + (1 - b) * math.log((1 - b) / (1 - a)),
            (1 - b) / (1 - a) - b / a,
        ),
    }
    eye = torch.eye(2, dtype=torch.float64)
    student, teacher = (
        torch.tensor([[x, 1 - x]], dtype=torch.float64).log() * temperature for x in (a, b)
    )
    student.requires_grad_()
    columns = TokenFields(ids_N=torch.tensor([0]), advantage_N=torch.zeros(1))
    for name, (value, slope) in expected.items():

        def objective(policy: TokenStats, batch: TokenFields, name: str = name) -> Losses:
            return Losses(loss=policy.statistic(name))

        one_N = torch.ones(1, dtype=torch.float64)
        loss = fused(
            student,
            Head(eye),
            columns,
            one_N,
            objective,
            teacher=Teacher(teacher, Head(eye)),
            temperature=temperature,
        ).loss
        step = slope * a * (1 - a) / temperature
        assert_close(loss.item(), value, rtol=1e-12, atol=1e-15)
        assert_close(
            torch.autograd.grad(loss, student)[0].tolist(), [[step, -step]], rtol=1e-12, atol=1e-14
        )


def test_a_block_takes_up_the_memory_of_the_one_before():
    buffers = BufferPool()
    first, other = buffers("p", torch.zeros(3, 4)), buffers("q", torch.zeros(3, 4))
    assert buffers("p", torch.zeros(2, 4)).data_ptr() == first.data_ptr() != other.data_ptr()
    larger = buffers("p", torch.zeros(4, 4))
    assert (larger.shape, larger.is_contiguous()) == ((4, 4), True)
