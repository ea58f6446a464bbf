"""The density of soft tokens against autograd of its plain form, and against what a score function
is for.

Numbers of tests are those of the Soft Tokens method's list: 2 (density and gradient), 3 (score), 9
(scale), 10 (chunks).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pytest
import torch
from hypothesis import given
from hypothesis.strategies import floats, integers
from torch import Tensor
from torch.distributions import Normal
from torch.testing import assert_close

from reasontrain.algo.objectives import SoftReinforce
from reasontrain.types import Losses, TokenFields, TokenStats
from reasontrain.vocab import EmbeddingBasis, Head, SoftScoring, soft, softmax_
from reasontrain.vocab.soft import HEALTH, SCORED, FedEmbeddings
from tests.vocab.test_fused import Largest

NUM, WIDTH, TOKENS, SIZE = 7, 13, 11, 5
"""Rows, rows of the head, tokens among them, and the width of hidden states and embeddings."""


@dataclass
class Case:
    """Random states, head and embeddings, and what was fed."""

    tied: bool = False
    bias: bool = False
    scale: float = 1.0
    softcap: float | None = None
    basis_scale: float = 1.0
    tau: float = 0.5
    sigma: float = 0.7
    dtype: torch.dtype = torch.float64
    num: int = NUM
    width: int = WIDTH
    seed: int = 1
    scoring: SoftScoring = field(default_factory=SoftScoring)

    def __post_init__(self) -> None:
        draw = torch.Generator().manual_seed(self.seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=draw, dtype=torch.float64).to(self.dtype)

        self.hidden_ND = normal(self.num, SIZE).requires_grad_()
        self.weight_VD = normal(self.width, SIZE).requires_grad_()
        self.embedding_VD = (
            self.weight_VD if self.tied else normal(self.width, SIZE).requires_grad_()
        )
        self.bias_V = normal(self.width).requires_grad_() if self.bias else None
        self.fed_ND = normal(self.num, SIZE)
        self.loss_weight_N = (
            torch.rand(self.num, generator=draw, dtype=torch.float64).to(self.dtype) + 0.1
        )
        columns = {
            "ids_N": torch.zeros(self.num, dtype=torch.long),
            "advantage_N": normal(self.num),
        }
        self.columns = TokenFields(**columns)
        every = [self.hidden_ND, self.weight_VD, self.embedding_VD, self.bias_V]
        self.leaves = [
            leaf for i, leaf in enumerate(every) if leaf is not None and not (self.tied and i == 2)
        ]

    def run(self, chunk: int | None = None) -> tuple[Tensor, dict[str, Tensor], list[Tensor]]:
        head = Head(self.weight_VD, self.bias_V, self.scale, self.softcap)
        basis = EmbeddingBasis(self.embedding_VD, min(TOKENS, self.width), self.basis_scale)
        fed = FedEmbeddings(self.fed_ND, self.tau, self.sigma)
        given = (self.columns, self.loss_weight_N, SoftReinforce(), self.scoring)
        found = soft(self.hidden_ND, head, basis, fed, *given, chunk=chunk)
        gradients = torch.autograd.grad(found.loss, self.leaves, allow_unused=True)
        return found.loss.detach(), dict(found.stats), list(gradients)

    def naive(self) -> tuple[Tensor, list[Tensor]]:
        """Everything at once, by autograd, from the densities of independent normal numbers."""
        leaves = [leaf.detach().double().requires_grad_() for leaf in self.leaves]
        hidden_ND, weight_VD = leaves[:2]
        embedding_VD = weight_VD if self.tied else leaves[2]
        raw_NV = hidden_ND @ weight_VD.T
        raw_NV = self.scale * (raw_NV if self.bias_V is None else raw_NV + leaves[-1])
        logits_NV = (
            raw_NV if self.softcap is None else self.softcap * torch.tanh(raw_NV / self.softcap)
        )
        tokens = min(TOKENS, self.width)
        p_NV = (logits_NV[:, :tokens] / self.tau).softmax(-1)
        mean_ND = self.basis_scale * p_NV @ embedding_VD[:tokens]
        # The closed form is D / 2 at the mean itself, where log N is -D log(sigma sqrt(2 pi)).
        law = Normal(mean_ND, self.sigma)
        constant = SIZE * (0.5 + math.log(self.sigma * math.sqrt(2 * math.pi)))
        logp_N = law.log_prob(self.fed_ND.double()).sum(-1) + constant
        loss = (self.loss_weight_N.double() * -self.columns.advantage_N.double() * logp_N).sum()
        return loss.detach(), list(torch.autograd.grad(loss, leaves))


# ---- 2: the density and its gradient


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"bias": True},
        {"scale": 1.7},
        {"softcap": 2.0},
        {"bias": True, "scale": 0.4, "softcap": 1.5, "basis_scale": 2.3},
    ],
)
def test_density_and_gradient_are_those_of_independent_normals(
    tied: bool, more: dict[str, float]
) -> None:
    case = Case(tied=tied, **more)
    loss, _, gradients = case.run(chunk=3)
    expected, naive = case.naive()
    assert_close(loss, expected, rtol=1e-10, atol=1e-10)
    for found, wanted in zip(gradients, naive, strict=True):
        assert_close(found, wanted, rtol=1e-10, atol=1e-10)


def test_one_row_by_hand() -> None:
    """z = (ln 3, 0) at tau 1: p = (3/4, 1/4).

    E = (2, -2): h0 = 1. h = 2, sigma = 1/2: health 4, log pi = (1 - 4) / 2 = -3/2.

    With A = -1 and coefficient 1 the loss is log pi. d / d h0 = (2 - 1) * 4 = 4; dE = 4 p = (3, 1);
    dp = 4 E = (8, -8); <p, dp> = 4; dz = p (dp - 4) = (3/4 * 4, 1/4 * -12) = (3, -3). W = (ln 3, 0)
    and hidden 1: dHidden = 3 ln 3, dW = (3, -3).
    """
    hidden, weight, embedding = (
        torch.tensor(rows, dtype=torch.float64, requires_grad=True)
        for rows in ([[1.0]], [[math.log(3)], [0.0]], [[2.0], [-2.0]])
    )
    fed = FedEmbeddings(torch.tensor([[2.0]], dtype=torch.float64), tau=1.0, sigma=0.5)
    columns = TokenFields(
        ids_N=torch.tensor([0]), advantage_N=torch.tensor([-1.0], dtype=torch.float64)
    )
    one = torch.ones(1, dtype=torch.float64)
    found = soft(
        hidden,
        Head(weight),
        EmbeddingBasis(embedding, 2),
        fed,
        columns,
        one,
        SoftReinforce(),
        SoftScoring(),
    )
    assert float(found.loss.detach()) == pytest.approx(-1.5)
    assert (float(found.stats[HEALTH]), float(found.stats[SCORED])) == (pytest.approx(4.0), 1.0)
    dhidden, dweight, dembedding = torch.autograd.grad(found.loss, (hidden, weight, embedding))
    assert dhidden.flatten().tolist() == pytest.approx([3 * math.log(3)])
    assert dweight.flatten().tolist() == pytest.approx([3.0, -3.0])
    assert dembedding.flatten().tolist() == pytest.approx([3.0, 1.0])


def test_choices_that_are_off_by_default() -> None:
    plain, mean = Case().run(), Case(scoring=SoftScoring(reduction="mean")).run()
    for whole, part in zip([plain[0], *plain[2]], [mean[0], *mean[2]], strict=True):
        assert_close(part * SIZE, whole, rtol=1e-10, atol=1e-10)
    detached = Case(scoring=SoftScoring(detach_mixture_embedding=True)).run()
    assert detached[2][2] is None
    assert_close(detached[2][:2], plain[2][:2], rtol=0, atol=0)
    hotter = Case(tau=1e-4, scoring=SoftScoring(tau_grad=1.0)).run()
    cold = Case(tau=1e-4).run()
    assert_close(hotter[0], cold[0])  # the density stays
    assert float(cold[2][0].abs().max()) < 1e-6 < 1e-2 < float(hotter[2][0].abs().max())


# ---- 3: what a score is for


def test_the_score_is_zero_in_the_mean() -> None:
    """Over 20,000 draws of h at one state the mean of dHidden stays within four standard errors of
    zero.
    """
    case, num = Case(), 20_000
    draw = torch.Generator().manual_seed(3)
    logits = case.hidden_ND[:1] @ case.weight_VD.T
    mean = (logits[:, :TOKENS] / case.tau).softmax(-1) @ case.embedding_VD[:TOKENS]
    fed = mean.detach() + case.sigma * torch.randn(num, SIZE, generator=draw, dtype=torch.float64)
    hidden = case.hidden_ND[:1].detach().repeat(num, 1).requires_grad_()
    score = gradient_at(case, hidden, fed, torch.full((num,), -1.0, dtype=torch.float64))
    error = score.std(0) / math.sqrt(num)
    assert (score.mean(0).abs() < 4 * error).all()
    assert (score.std(0) > 0.1).any()


def test_reinforce_finds_the_gradient_of_a_quadratic_reward() -> None:
    """E |h - c|^2 = |h0 - c|^2 + D sigma^2: its gradient is autograd's of |h0 - c|^2, and E[reward
    * score] is the same.
    """
    case, num = Case(), 60_000
    draw = torch.Generator().manual_seed(4)
    goal = torch.randn(SIZE, generator=draw, dtype=torch.float64)
    start = case.hidden_ND[:1].detach().clone().requires_grad_()
    mean = ((start @ case.weight_VD.T)[:, :TOKENS] / case.tau).softmax(-1) @ case.embedding_VD[
        :TOKENS
    ]
    (analytic,) = torch.autograd.grad((mean - goal).square().sum(), start)
    fed = mean.detach() + case.sigma * torch.randn(num, SIZE, generator=draw, dtype=torch.float64)
    reward = (fed - goal).square().sum(-1)
    hidden = start.detach().repeat(num, 1).requires_grad_()
    found = gradient_at(case, hidden, fed, -(reward - reward.mean()))  # the loss is -A log pi
    error = found.std(0) / math.sqrt(num)
    assert ((found.mean(0) - analytic[0]).abs() < 4 * error).all()
    assert (analytic[0].abs() > 20 * error).any()


def gradient_at(case: Case, hidden: Tensor, fed: Tensor, advantage: Tensor) -> Tensor:
    """dHidden of -A log pi at every row."""
    columns = TokenFields(ids_N=torch.zeros(len(hidden), dtype=torch.long), advantage_N=advantage)
    given = (columns, torch.ones_like(advantage), SoftReinforce(), SoftScoring())
    basis = EmbeddingBasis(case.embedding_VD, TOKENS)
    loss = soft(
        hidden, Head(case.weight_VD), basis, FedEmbeddings(fed, case.tau, case.sigma), *given
    ).loss
    return torch.autograd.grad(loss, hidden)[0]


# ---- 9: the scale of sigma


@given(sigma=floats(0.1, 3.0), factor=floats(1.1, 4.0), seed=integers(0, 1000))
def test_differences_of_log_densities_scale_as_one_over_sigma_squared(
    sigma: float, factor: float, seed: int
) -> None:
    def densities(sigma: float) -> Tensor:
        case = Case(sigma=sigma, seed=seed)
        found = []

        def keep(policy: TokenStats, batch: TokenFields) -> Losses:
            found.append(policy.logp_N.detach().clone())
            return Losses(loss=policy.logp_N)

        given = (case.columns, case.loss_weight_N, keep, SoftScoring())
        fed = FedEmbeddings(case.fed_ND, case.tau, sigma)
        soft(
            case.hidden_ND,
            Head(case.weight_VD),
            EmbeddingBasis(case.embedding_VD, TOKENS),
            fed,
            *given,
        )
        return torch.cat(found)

    near, far = densities(sigma), densities(sigma * factor)
    assert_close(near - near[0], factor**2 * (far - far[0]), rtol=1e-8, atol=1e-8)


def test_a_thousandth_of_the_embedding_is_a_sixth_in_the_log_ratio() -> None:
    """The sheet's figure of fragile ratios: 0.001 RMS in each of 3072 coordinates over 0.33 RMS is
    sqrt(3072) / 330 = 0.168.
    """
    size, rms, sigma = 3072, 0.02, 0.33 * 0.02
    draw = torch.Generator().manual_seed(5)
    noise = sigma * torch.randn(4000, size, generator=draw)
    moved = 1e-3 * rms * torch.ones(size)
    ratio = ((noise**2).sum(-1) - ((noise - moved) ** 2).sum(-1)) / (2 * sigma**2)
    assert float(ratio.std()) == pytest.approx(0.168, rel=0.05)


# ---- 10: chunks


@pytest.mark.parametrize("chunk", [None, 1, 2, 3, 7, 100])
def test_chunks_in_fp32(chunk: int | None) -> None:
    case = Case(bias=True, dtype=torch.float32)
    loss, _, gradients = case.run(chunk=chunk)
    expected, naive = case.naive()
    assert_close(loss.double(), expected, rtol=1e-5, atol=1e-5)
    for found, wanted in zip(gradients, naive, strict=True):
        assert float((found - wanted).norm()) < 1e-5 * float(wanted.norm())


def test_nothing_vocabulary_sized_is_larger_than_a_chunk_or_kept() -> None:
    case = Case(num=60, width=50, dtype=torch.float32)
    with Largest() as largest:
        case.run(chunk=6)
    assert largest.numel == 6 * 50


def test_rows_without_a_coefficient_do_not_exist() -> None:
    case = Case()
    with torch.no_grad():
        case.hidden_ND[2] = torch.inf
    case.fed_ND[2], case.loss_weight_N[2] = torch.nan, 0.0
    loss, stats, gradients = case.run(chunk=3)
    assert math.isfinite(float(loss))
    assert all(bool(value.isfinite()) for value in stats.values())
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)
    assert (gradients[0][2] == 0).all()


def test_no_row_is_a_zero_that_runs_backward() -> None:
    loss, stats, gradients = Case(num=0).run()
    assert float(loss) == 0.0
    assert [float(value) for value in stats.values()] == [0.0, 0.0]
    assert [gradient.shape for gradient in gradients] == [(0, SIZE), (WIDTH, SIZE), (WIDTH, SIZE)]
    assert all(bool((gradient == 0).all()) for gradient in gradients)


# ---- mixtures


def test_a_small_tau_neither_overflows_nor_ties() -> None:
    """Logits of 20 lie 0.125 apart in bfloat16; in float32 two that differ by 0.001 are ten taus
    apart: e^-10 = 4.54e-5.
    """
    p = softmax_(torch.tensor([[20.0, 19.999, -1e4]]), 1e-4)
    assert p[0].tolist() == pytest.approx([1 - 4.54e-5, 4.54e-5, 0.0], abs=2e-6)


def test_share_with_a_score_falls_with_tau() -> None:
    """Facts of the sheet (6.1): of 2,000 peaked logits nearly every step has a score at tau 0.5,
    nearly none at 1e-4.
    """
    draw = torch.Generator().manual_seed(6)
    hidden, weight = torch.randn(400, 64, generator=draw) / 4, torch.randn(2000, 64, generator=draw)
    columns = TokenFields(ids_N=torch.zeros(400, dtype=torch.long), advantage_N=torch.ones(400))
    shares = []
    for tau in (1.0, 0.5, 1e-2, 1e-4):
        fed = FedEmbeddings(torch.zeros(400, 64), tau, 0.3)
        given = (columns, torch.ones(400), SoftReinforce(), SoftScoring())
        shares.append(
            float(
                soft(hidden, Head(weight), EmbeddingBasis(weight, 2000), fed, *given).stats[SCORED]
            )
            / 400
        )
    assert shares[:2] == [1.0, 1.0]
    assert shares[3] < 0.01 < shares[2] < 0.5
