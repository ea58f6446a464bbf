"""Triton's kernels against float64 autograd and the closed form; on a CPU by Triton's interpreter,
on a GPU compiled.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from reasontrain.types import Losses, TokenFields, TokenStats, UserError
from reasontrain.vocab import Head, Teacher, fused, measure
from reasontrain.vocab.analytic import AnalyticDistribution, BufferPool
from tests.vocab.test_fused import naive_statistic

pytest.importorskip("triton", reason="Triton is for Linux")
triton_backend = pytest.importorskip("reasontrain.vocab.triton_backend")

pytestmark = pytest.mark.filterwarnings(
    "ignore:invalid value encountered in subtract"
)  # the interpreter's, of -inf - -inf

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
NAMES = ("logp", "entropy", "kl_reverse", "kl_forward", "jsd:0.0", "jsd:0.3", "jsd:1.0")
WIDTHS = [1, 5, 16, 37, 48]  # beside a tile of 16: smaller, equal, no multiple, a multiple


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_backend, "TILE", 16)


@dataclass(frozen=True)
class Case:
    """Logits of both models, and a slope for each statistic at each row."""

    x_NV: Tensor
    y_NV: Tensor
    ids_N: Tensor
    grad_N: Mapping[str, Tensor]

    @classmethod
    def drawn(cls, num_rows: int = 4, width: int = 37, spread: float = 3.0) -> Case:
        draw = torch.Generator().manual_seed(width)
        x_NV, y_NV = (spread * torch.randn(num_rows, width, generator=draw) for _ in range(2))
        stat_grads = {name: torch.rand(num_rows, generator=draw) - 0.3 for name in NAMES}
        return cls(x_NV, y_NV, torch.randint(width, (num_rows,), generator=draw), stat_grads)

    def triton(self) -> triton_backend.TritonDistribution:
        y_NV = self.y_NV.to(DEVICE)
        return triton_backend.TritonDistribution(
            self.x_NV.to(DEVICE, copy=True), self.ids_N.to(DEVICE), lambda: y_NV
        )

    def analytic(self) -> AnalyticDistribution:
        return AnalyticDistribution(self.x_NV.clone(), self.ids_N, self.y_NV.clone, BufferPool())

    def found(self, names: tuple[str, ...]) -> tuple[list[Tensor], Tensor]:
        distribution = self.triton()
        values = [distribution.value(name).cpu() for name in names]
        return values, distribution.gradient(
            {name: self.grad_N[name].to(DEVICE) for name in names}
        ).cpu()

    def naive(self, names: tuple[str, ...]) -> tuple[list[Tensor], Tensor]:
        x_NV = self.x_NV.double().requires_grad_()
        values = [naive_statistic(name, x_NV, self.y_NV.double(), self.ids_N) for name in names]
        total = torch.stack(
            [(self.grad_N[name] * value).sum() for name, value in zip(names, values, strict=True)]
        ).sum()
        return [value.detach() for value in values], torch.autograd.grad(total, x_NV)[0]


def check(case: Case, names: tuple[str, ...]) -> None:
    assert_close(case.found(names), case.naive(names), rtol=1e-5, atol=2e-5, check_dtype=False)


@pytest.mark.parametrize("name", NAMES)
def test_each_statistic_alone_equals_naive_float64(name: str) -> None:
    check(Case.drawn(2), (name,))


@pytest.mark.parametrize("num_rows", [1, 3])
@pytest.mark.parametrize("width", WIDTHS)
def test_all_statistics_together_whatever_the_width(width: int, num_rows: int) -> None:
    check(Case.drawn(num_rows, width), NAMES)


def test_two_divergences_of_jensen_and_shannon_at_once() -> None:
    case = Case.drawn()
    check(
        replace(case, grad_N={**case.grad_N, "jsd:0.6": case.grad_N["entropy"]}),
        ("jsd:0.3", "jsd:0.6", "logp"),
    )


@pytest.mark.parametrize("descending", [False, True])
def test_a_largest_that_moves_with_every_id_or_never_again(descending: bool) -> None:
    case = Case.drawn(3, 64)
    x_NV = case.x_NV.sort(1, descending=descending).values
    check(replace(case, x_NV=x_NV, y_NV=x_NV.flip(1)), NAMES)


def test_rows_of_equal_logits_and_of_one_likely_id() -> None:
    case = Case.drawn(4, 37)
    case.x_NV[0], case.y_NV[1], case.x_NV[2, 30], case.y_NV[3, 2] = 7.0, -7.0, 40.0, 40.0
    check(case, NAMES)


def test_logits_far_from_zero_keep_their_digits() -> None:
    case = Case.drawn(spread=3.0)
    offset = 2.0**20  # steps of 1/8 there
    x_NV, y_NV = ((8 * logits_NV).round() / 8 for logits_NV in (case.x_NV, case.y_NV))
    near, far = (
        replace(case, x_NV=x_NV + much, y_NV=y_NV - much).found(NAMES) for much in (0.0, offset)
    )
    assert_close(far, near, rtol=1e-6, atol=1e-6)


def test_the_entropy_of_equal_logits_and_a_divergence_worked_by_hand() -> None:
    # p = (1/2, 1/4, 1/4), q = (1/4, 1/4, 1/2): H = 1.5 ln 2; KL(p || q) = ln 2 / 2 - ln 2 / 4 = ln
    # 2 / 4
    x_NV, y_NV = torch.tensor([[0.5, 0.25, 0.25]]).log(), torch.tensor([[0.25, 0.25, 0.5]]).log()
    values, gradient_NV = Case(x_NV, y_NV, torch.tensor([2]), {"kl_reverse": torch.ones(1)}).found(
        ("kl_reverse",)
    )
    # p (log p - log q - KL): 1/2 (1 - 1/4) ln 2, 1/4 (0 - 1/4) ln 2, 1/4 (-1 - 1/4) ln 2
    assert_close(values[0].item(), math.log(2) / 4, rtol=1e-6, atol=0)
    assert_close(
        gradient_NV / math.log(2), torch.tensor([[3 / 8, -1 / 16, -5 / 16]]), rtol=1e-6, atol=0
    )
    alone = triton_backend.TritonDistribution(
        x_NV.to(DEVICE), torch.tensor([2], device=DEVICE), None
    )
    assert_close(alone.value("entropy").item(), 1.5 * math.log(2), rtol=1e-6, atol=0)


def test_no_rows() -> None:
    values, gradient_NV = Case.drawn(0).found(NAMES)
    assert all(value_N.shape == (0,) for value_N in values)
    assert gradient_NV.shape == (0, 37)


@pytest.mark.parametrize("name", ["kl_reverse", "kl_forward", "jsd:0.3"])
def test_models_that_agree_diverge_by_no_less_than_zero(name: str) -> None:
    case = Case.drawn(30, 64)
    near = replace(case, y_NV=case.x_NV + 1e-4 * case.y_NV)
    value_N = near.triton().value(name)
    assert value_N.min() >= 0
    assert value_N.max() < 2e-6
    assert replace(case, y_NV=case.x_NV).triton().value(name).max() < 1e-6


def test_ids_that_are_masked_have_no_part() -> None:
    """Whole tiles of them, at either end, and single ones between."""
    case = Case.drawn(4, 64)
    gone = torch.zeros(64, dtype=torch.bool)
    gone[:17] = gone[20] = gone[33] = gone[47:] = True
    case.ids_N[:] = torch.tensor([17, 22, 46, 40])
    masked = replace(
        case,
        x_NV=case.x_NV.masked_fill(gone, -math.inf),
        y_NV=case.y_NV.masked_fill(gone, -math.inf),
    )
    places = torch.full((64,), -1)
    places[~gone] = torch.arange(int((~gone).sum()))
    part = replace(
        case, x_NV=case.x_NV[:, ~gone], y_NV=case.y_NV[:, ~gone], ids_N=places[case.ids_N]
    )
    values, gradient_NV = masked.found(NAMES)
    assert_close(
        (values, gradient_NV[:, ~gone]), part.naive(NAMES), rtol=1e-5, atol=2e-5, check_dtype=False
    )
    assert not gradient_NV[:, gone].any()


@pytest.mark.parametrize("columns", [slice(0, 1), slice(30, 31), slice(16, 48)])
@pytest.mark.parametrize("name", ["logp", "entropy", "kl_reverse", "kl_forward", "jsd:0.3"])
def test_ids_that_one_of_both_models_masks_count_as_in_the_analytic_backend(
    name: str, columns: slice
) -> None:
    for who in ("x_NV", "y_NV"):
        case = Case.drawn(3, 64)
        getattr(case, who)[:, columns] = -math.inf
        analytic = case.analytic()
        value_N = analytic.value(name).clone()
        gradient_NV = analytic.gradient({name: case.grad_N[name]})
        assert_close(case.found((name,)), ([value_N], gradient_NV), rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("size", [1e3, 1e10, 3e37])
def test_extreme_logits_never_make_nan(size: float) -> None:
    case = Case.drawn(spread=size)
    for names in (("logp", "entropy"), NAMES):
        values, gradient_NV = case.found(names)
        assert not any(value_N.isnan().any() for value_N in values)
        assert not gradient_NV.isnan().any()
    for name in ("logp", "entropy"):
        assert_close(
            case.triton().value(name).cpu(), case.analytic().value(name), rtol=1e-6, atol=1e-6
        )


def test_a_logit_that_is_no_number_is_not_hidden() -> None:
    case = Case.drawn(2, 37)
    case.x_NV[1, 20] = math.nan
    values, gradient_NV = case.found(("entropy", "kl_reverse"))
    assert all(value_N.isnan().tolist() == [False, True] for value_N in values)
    assert gradient_NV[1].isnan().all()
    assert not gradient_NV[0].isnan().any()


def test_a_row_does_not_depend_on_its_block() -> None:
    case = Case.drawn(5, 37)
    values, gradient_NV = case.found(NAMES)
    for row in range(5):
        stat_grads = {name: grad_N[row : row + 1] for name, grad_N in case.grad_N.items()}
        alone = Case(
            case.x_NV[row : row + 1],
            case.y_NV[row : row + 1],
            case.ids_N[row : row + 1],
            stat_grads,
        ).found(NAMES)
        assert torch.equal(gradient_NV[row : row + 1], alone[1])
        assert all(
            torch.equal(value_N[row : row + 1], one)
            for value_N, one in zip(values, alone[0], strict=True)
        )


@pytest.mark.parametrize("num", [1, 5, 100])
def test_the_teachers_mass_on_the_students_likeliest_ids(num: int) -> None:
    case = Case.drawn()
    mass_N = case.triton().teacher_top_mass(num).cpu()
    assert_close(mass_N, case.analytic().teacher_top_mass(num), rtol=1e-5, atol=1e-6)
    apart_N = case.triton().top_divergence(num).cpu()
    assert_close(apart_N, case.analytic().top_divergence(num), rtol=1e-5, atol=1e-6)


def test_the_teacher_is_not_asked_for_what_is_the_students() -> None:
    case = Case.drawn()
    alone = triton_backend.TritonDistribution(case.x_NV.to(DEVICE), case.ids_N.to(DEVICE), None)
    alone.value("logp")
    alone.value("entropy")
    with pytest.raises(UserError, match="name one under `teacher`"):
        alone.value("kl_reverse")
    alone.gradient({"logp": case.grad_N["logp"].to(DEVICE)})


def kl(policy: TokenStats, batch: TokenFields) -> Losses:
    return Losses(loss=policy.statistic("kl_reverse") + policy.logp_N)


def test_evidence_of_both_models_is_found_in_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[object] = []
    original = triton_backend.TritonDistribution._statistics
    counted = lambda self, teacher: (passes.append(teacher), original(self, teacher))[1]  # noqa: E731
    monkeypatch.setattr(triton_backend.TritonDistribution, "_statistics", counted)
    draw = torch.Generator(DEVICE).manual_seed(0)
    hidden_ND, weight_VD = (torch.randn(size, 4, generator=draw, device=DEVICE) for size in (3, 50))
    names = ("entropy", "logp", "kl_reverse", "compatibility", "disagreement")
    head = Head(weight_VD, vocabulary="triton")
    found = measure(
        hidden_ND,
        head,
        torch.zeros(3, dtype=torch.long, device=DEVICE),
        names,
        teacher=Teacher(-hidden_ND, head),
    )
    assert (tuple(found), len(passes)) == (names, 1)


@pytest.mark.parametrize(
    ("teacher_width", "dtype"), [(37, torch.float32), (30, torch.float32), (37, torch.float64)]
)
def test_two_widths_and_float64_use_the_analytic_backend(
    teacher_width: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    original = triton_backend.TritonDistribution.__init__
    monkeypatch.setattr(
        triton_backend.TritonDistribution,
        "__init__",
        lambda self, *args: made.append(original(self, *args)),
    )
    draw = torch.Generator().manual_seed(0)
    hidden_ND, student_VD, teacher_VD = (
        torch.randn(num, 4, generator=draw).to(DEVICE, dtype) for num in (3, 37, teacher_width)
    )
    ids_N, teacher = torch.tensor([1, 2, 3], device=DEVICE), Teacher(hidden_ND, Head(teacher_VD))
    found = []
    for vocabulary in ("triton", "torch"):
        head = Head(student_VD, vocabulary=vocabulary)
        found.append(measure(hidden_ND, head, ids_N, ["logp", "kl_reverse"], teacher=teacher))
    assert_close(*found, rtol=1e-5, atol=2e-5)
    assert bool(made) == (teacher_width == 37 and dtype == torch.float32)


COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from reasontrain.vocab import triton_kernels

FLAGS = ("LOGP", "ENTROPY", "REVERSE", "FORWARD", "JSD")
for kernel, flags in (
    (triton_kernels.statistics, {"TEACHER": True}),
    (triton_kernels.statistics, {"TEACHER": False}),
    (triton_kernels.mixture, {}),
    (triton_kernels.gradient, dict.fromkeys(FLAGS, True)),
    *((triton_kernels.gradient, {flag: flag == only for flag in FLAGS}) for only in FLAGS),
):
    constants = {**flags, "TILE": 2048}
    kinds = {"ids_ptr": "*i64", "log_student": "fp32", "log_teacher": "fp32"}
    names = [parameter.name for parameter in kernel.params]
    signature = {
        name: "constexpr"
        if name in constants
        else kinds.get(name, "*fp32" if name.endswith("_ptr") else "i32")
        for name in names
    }
    source = ASTSource(kernel, signature, constants)
    options = {"num_warps": 8}
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    print(kernel.__name__, len(compiled.asm["ptx"]) > 0)
"""


def test_kernels_compile_for_a_gpu_that_is_not_there(tmp_path: Path) -> None:
    """The interpreter takes more than the compiler does, which needs no GPU."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    root = Path(__file__).parents[2]
    run = subprocess.run(
        [sys.executable, "-c", COMPILE], cwd=root, env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert run.stdout.split().count("True") == 9


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["logp", "entropy", "kl_reverse", "kl_forward", "jsd:0.3"])
def test_a_real_vocabulary_in_bfloat16_equals_torch(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # the tile that is used
    draw = torch.Generator("cuda").manual_seed(0)
    hidden_ND, teacher_ND = (
        torch.randn(50, 256, generator=draw, device="cuda").bfloat16() for _ in range(2)
    )
    student_VD, teacher_VD = (
        0.1 * torch.randn(151_936, 256, generator=draw, device="cuda").bfloat16() for _ in range(2)
    )
    ids_N = torch.randint(151_936, (50,), generator=draw, device="cuda")
    columns, weight_N = (
        TokenFields(ids_N=ids_N, advantage_N=torch.zeros(50, device="cuda")),
        torch.ones(50, device="cuda"),
    )
    leaves, found = [hidden_ND.requires_grad_(), student_VD.requires_grad_()], []
    for vocabulary in ("triton", "auto", "torch"):
        head, teacher = (
            Head(student_VD, vocabulary=vocabulary),
            Teacher(teacher_ND, Head(teacher_VD)),
        )

        def objective(policy: TokenStats, batch: TokenFields) -> Losses:
            return Losses(loss=policy.statistic(name))

        loss = fused(
            hidden_ND, head, columns, weight_N, objective, teacher=teacher, temperature=0.8
        ).loss
        found.append((loss.detach(), *torch.autograd.grad(loss, leaves)))
    assert all(torch.equal(one, other) for one, other in zip(found[0], found[1], strict=True))
    assert_close(found[0][0], found[2][0], rtol=1e-5, atol=1e-4)
    for mine, theirs in zip(found[0][1:], found[2][1:], strict=True):
        assert (
            float((mine - theirs).norm() / theirs.norm()) < 4e-3
        )  # the logits' gradients are rounded to bfloat16 before products
