"""The work of the rows at the head: a loss of random states and heads, by us, by TRL's kernels, and
by plain torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from trl.kernels import ChunkedLogProbFunction, chunked_divergence

from reasontrain import vocab
from reasontrain.algo.objectives import Distill
from reasontrain.algo.token_selection import Tip
from reasontrain.bench.case import Numbers, Setting, Setup, Work
from reasontrain.types import Batch, Losses, TokenFields, TokenKind, TokenStats
from reasontrain.vocab import Head, Teacher, fused, measure
from reasontrain.vocab.chunks import ChunkedLogits
from reasontrain.vocab.head import HeadGradient

TEMPERATURE = 1.0
ROLLOUTS = 8
"""That the rows belong to: TIP ranks the tokens of each."""
Tiles = tuple[int, int]
"""Rows and ids that TRL's divergence projects at a time: TOKEN_CHUNK_SIZE and VOCAB_CHUNK_SIZE of
its module.
"""


@dataclass(frozen=True, kw_only=True)
class VocabSize:
    """N rows, V ids and hidden states of width H, in one dtype."""

    rows: int
    vocabulary: int
    hidden: int
    dtype: torch.dtype

    def settings(self) -> dict[str, Setting]:
        """As the record has it."""
        return {
            "N": self.rows,
            "V": self.vocabulary,
            "H": self.hidden,
            "dtype": str(self.dtype).removeprefix("torch."),
        }


@dataclass(frozen=True, eq=False)
class Inputs:
    """What both sides get: states and head of a student that learns, and of its teacher."""

    hidden_ND: Float[Tensor, "N D"]
    weight_VD: Float[Tensor, "V D"]
    teacher_ND: Float[Tensor, "N D"]
    teacher_VD: Float[Tensor, "V D"]
    ids_N: Int[Tensor, " N"]
    weight_N: Float[Tensor, " N"]

    @classmethod
    def drawn(cls, size: VocabSize, device: torch.device) -> Inputs:
        """States of unit variance and heads that give logits of about unit variance, by a seed."""
        draw = torch.Generator(device).manual_seed(0)
        normal = partial(torch.randn, generator=draw, device=device)
        states = [normal(size.rows, size.hidden).to(size.dtype) for _ in range(2)]
        heads = [
            (normal(size.vocabulary, size.hidden) / size.hidden**0.5).to(size.dtype)
            for _ in range(2)
        ]
        return cls(
            hidden_ND=states[0].requires_grad_(),
            weight_VD=heads[0].requires_grad_(),
            teacher_ND=states[1],
            teacher_VD=heads[1],
            ids_N=torch.randint(size.vocabulary, (size.rows,), generator=draw, device=device),
            weight_N=torch.rand(size.rows, generator=draw, device=device),
        )

    @property
    def head(self) -> Head:
        """The student's."""
        return Head(self.weight_VD)

    @property
    def columns(self) -> TokenFields:
        """What an objective knows of the rows."""
        return TokenFields(ids_N=self.ids_N, advantage_N=torch.zeros_like(self.weight_N))

    def backward(self, loss: Tensor) -> Numbers:
        """The loss and the size of its two gradients."""
        dhidden_ND, dweight_VD = torch.autograd.grad(loss, (self.hidden_ND, self.weight_VD))
        return {
            "loss": float(loss.detach()),
            "dhidden": float(dhidden_ND.norm()),
            "dweight": float(dweight_VD.norm()),
        }

    def chosen(self, evidence: Mapping[str, Tensor], keep: float) -> Bool[Tensor, " N"]:
        """The rows that TIP keeps, as a run has it: evidence goes to the driver, and weights come
        back.
        """
        shape = ROLLOUTS, len(self.ids_N) // ROLLOUTS
        batch = Batch(
            ids_BT=self.ids_N.reshape(shape).cpu(),
            kind_BT=torch.full(shape, int(TokenKind.RESPONSE)),
            rollout_B=torch.arange(ROLLOUTS),
            group_B=torch.zeros(ROLLOUTS, dtype=torch.long),
            reward_B=torch.zeros(ROLLOUTS),
            advantage_B=torch.zeros(ROLLOUTS),
            evidence={name: value_N.reshape(shape).cpu() for name, value_N in evidence.items()},
        )
        return Tip(keep_ratio=keep)(batch).reshape(-1).to(self.ids_N.device) != 0


Make = Callable[[], Inputs]
Gives = Literal["loss", "scores"]
"""What the sides are compared by: the loss and its gradients, or, where the losses differ by
design, entropy and divergence.
"""


@contextmanager
def totals(ready: Setup, num_rows: int) -> Iterator[Work]:
    """A work whose numbers are left out but for its rows, to be set beside one that computes no
    loss.
    """
    with ready() as inner:

        def work() -> Numbers:
            inner()
            return {"rows": float(num_rows)}

        yield work


@contextmanager
def distils(make: Make) -> Iterator[Work]:
    """The gradient is formed in the forward pass."""
    given = make()

    def work() -> Numbers:
        teacher = Teacher(given.teacher_ND, Head(given.teacher_VD))
        return given.backward(
            fused(
                given.hidden_ND,
                given.head,
                given.columns,
                given.weight_N,
                Distill(),
                teacher=teacher,
            ).loss
        )

    yield work


@contextmanager
def selects(make: Make, keep: float, gives: Gives) -> Iterator[Work]:
    """All rows scored without a gradient, and the loss of those that TIP keeps."""
    given = make()

    def work() -> Numbers:
        teacher = Head(given.teacher_VD)
        names = ("entropy", "kl_reverse")
        scores = measure(
            given.hidden_ND,
            given.head,
            given.ids_N,
            names,
            teacher=Teacher(given.teacher_ND, teacher),
        )
        kept_N = given.chosen(scores, keep)
        columns, weight_K = given.columns[kept_N], given.weight_N[kept_N]
        seen = Teacher(given.teacher_ND[kept_N], teacher)
        numbers = given.backward(
            fused(
                given.hidden_ND[kept_N], given.head, columns, weight_K, Distill(), teacher=seen
            ).loss
        )
        return (
            numbers
            if gives == "loss"
            else {name: float(value_N.sum()) for name, value_N in scores.items()}
        )

    yield work


@contextmanager
def multiplies(make: Make, *, scored: bool, keep: float) -> Iterator[Work]:
    """The matrix products of the work above and nothing between them: both heads at every row to
    score, and four at rows kept.
    """
    given = make()

    def work() -> Numbers:
        if scored:
            _multiply(given, len(given.ids_N), backward=False)
        _multiply(given, round(keep * len(given.ids_N)), backward=True)
        return {"rows": float(len(given.ids_N))}

    yield work


@torch.no_grad()
def _multiply(given: Inputs, num_rows: int, *, backward: bool) -> None:
    """The first rows through both heads in chunks; a projection stands in for its gradient, which
    has its shape.
    """
    rows = slice(num_rows)
    teacher = Teacher(given.teacher_ND[rows], Head(given.teacher_VD))
    gradient = HeadGradient(
        given.hidden_ND[rows], given.head, hidden=backward, weight=backward, bias=False
    )
    for part in ChunkedLogits(
        given.hidden_ND[rows], given.head, given.ids_N[rows], TEMPERATURE, teacher
    ).chunks():
        assert len(part.teacher_raw_CU) == len(part.hidden_CD)
        gradient.add(part.rows, part.hidden_CD, part.raw_CV)


@contextmanager
def trl_distils(make: Make, tiles: Tiles | None, gives: Gives) -> Iterator[Work]:
    """At every row (beta 1 is the reverse KL); entropy comes with it.

    `tiles` replaces its module's constants meanwhile.
    """
    given = make()
    shipped = chunked_divergence.TOKEN_CHUNK_SIZE, chunked_divergence.VOCAB_CHUNK_SIZE

    def work() -> Numbers:
        both = (given.hidden_ND, given.weight_VD, None), (given.teacher_ND, given.teacher_VD, None)
        divergence_N, entropy_N = chunked_divergence.ChunkedDivergenceFunction.apply(
            *both[0], *both[1], 1.0, TEMPERATURE
        )
        scores = {
            "entropy": float(entropy_N.sum()),
            "kl_reverse": float(divergence_N.detach().sum()),
        }
        numbers = given.backward((given.weight_N * divergence_N).sum())
        return numbers if gives == "loss" else scores

    try:
        chunked_divergence.TOKEN_CHUNK_SIZE, chunked_divergence.VOCAB_CHUNK_SIZE = tiles or shipped
        yield work
    finally:
        chunked_divergence.TOKEN_CHUNK_SIZE, chunked_divergence.VOCAB_CHUNK_SIZE = shipped


@contextmanager
def materialises(make: Make, keep: float) -> Iterator[Work]:
    """TIP as one writes it at first: the logits of both models at all rows, and autograd."""
    given = make()

    def work() -> Numbers:
        logp_NV = (given.hidden_ND @ given.weight_VD.t()).float().log_softmax(-1)
        with torch.no_grad():
            logq_NV = (given.teacher_ND @ given.teacher_VD.t()).float().log_softmax(-1)
        kl_N = (logp_NV.exp() * (logp_NV - logq_NV)).sum(-1)
        with torch.no_grad():
            entropy_N = -(logp_NV.exp() * logp_NV).sum(-1)
        kept_N = given.chosen({"entropy": entropy_N, "kl_reverse": kl_N.detach()}, keep)
        return given.backward((given.weight_N * kept_N * kl_N).sum())

    yield work


def _known(policy: TokenStats, batch: TokenFields) -> Losses:
    """-log p of each token; its entropy is only looked at."""
    return Losses(loss=-policy.logp_N, stats={"entropy": policy.entropy_N})


@contextmanager
def scores_known(make: Make) -> Iterator[Work]:
    """The coefficients are known before the loss."""
    given = make()

    def work() -> Numbers:
        found = fused(given.hidden_ND, given.head, given.columns, given.weight_N, _known)
        return {"entropy": float(found.stats["entropy"]), **given.backward(found.loss)}

    yield work


@contextmanager
def scores_later(make: Make) -> Iterator[Work]:
    """The coefficients come after the log-probabilities, as in DPO: logits are made a second time."""
    given = make()

    def work() -> Numbers:
        logp_N = vocab.logp(given.hidden_ND, given.head, given.ids_N, temperature=TEMPERATURE)
        return given.backward(-(given.weight_N * logp_N).sum())

    yield work


@contextmanager
def trl_scores(make: Make, chunk: int, *, entropy: bool) -> Iterator[Work]:
    """With the outputs that our side gives, and no others."""
    given = make()
    asked = (None, given.ids_N, TEMPERATURE, chunk, None, 1.0, ("entropy",) if entropy else ())

    def work() -> Numbers:
        logp_N, entropy_N, *_ = ChunkedLogProbFunction.apply(
            given.hidden_ND, given.weight_VD, *asked
        )
        seen = {"entropy": float(entropy_N.detach().sum())} if entropy else {}
        return {**seen, **given.backward(-(given.weight_N * logp_N).sum())}

    yield work
