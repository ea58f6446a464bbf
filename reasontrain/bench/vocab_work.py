"""The work of the cases at the head, by reasontrain, by TRL's kernels, and by plain torch.

It is a loss of random hidden states and heads.
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
"""Number of rollouts that the positions belong to: TIP ranks the tokens of each."""
Tiles = tuple[int, int]
"""Numbers of positions and ids that TRL's divergence projects at a time.

They are TOKEN_CHUNK_SIZE and VOCAB_CHUNK_SIZE of its module.
"""


@dataclass(frozen=True, kw_only=True)
class VocabSize:
    """N positions, V ids and hidden states of width H, in one dtype."""

    rows: int
    vocabulary: int
    hidden: int
    dtype: torch.dtype

    def settings(self) -> dict[str, Setting]:
        """The size, for the record."""
        return {
            "N": self.rows,
            "V": self.vocabulary,
            "H": self.hidden,
            "dtype": str(self.dtype).removeprefix("torch."),
        }


@dataclass(frozen=True, eq=False)
class Inputs:
    """Inputs of both contestants: hidden states and heads of student and teacher."""

    hidden_ND: Float[Tensor, "N D"]
    weight_VD: Float[Tensor, "V D"]
    teacher_ND: Float[Tensor, "N D"]
    teacher_VD: Float[Tensor, "V D"]
    ids_N: Int[Tensor, " N"]
    weight_N: Float[Tensor, " N"]

    @classmethod
    def drawn(cls, size: VocabSize, device: torch.device) -> Inputs:
        """Seeded states of unit variance, and heads whose logits have about unit variance."""
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
        """The student's head."""
        return Head(self.weight_VD)

    @property
    def columns(self) -> TokenFields:
        """The fields of the positions that an objective reads."""
        return TokenFields(ids_N=self.ids_N, advantage_N=torch.zeros_like(self.weight_N))

    def backward(self, loss: Tensor) -> Numbers:
        """The loss and the norms of its two gradients."""
        dhidden_ND, dweight_VD = torch.autograd.grad(loss, (self.hidden_ND, self.weight_VD))
        return {
            "loss": float(loss.detach()),
            "dhidden": float(dhidden_ND.norm()),
            "dweight": float(dweight_VD.norm()),
        }

    def chosen(self, evidence: Mapping[str, Tensor], keep: float) -> Bool[Tensor, " N"]:
        """The positions that TIP keeps, selected on the CPU as in a run."""
        shape = (ROLLOUTS, len(self.ids_N) // ROLLOUTS)
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
"""Numbers that are compared between contestants.

They are the loss and its gradients, or entropy and divergence if the losses differ by design.
"""


@contextmanager
def totals(setup: Setup, num_rows: int) -> Iterator[Work]:
    """The work with the number of positions as its only number, for a peer without a loss."""
    with setup() as full_work:

        def work() -> Numbers:
            full_work()
            return {"rows": float(num_rows)}

        yield work


@contextmanager
def distils(make: Make) -> Iterator[Work]:
    """Distillation at every position; the gradient is formed in the forward pass."""
    inputs = make()

    def work() -> Numbers:
        teacher = Teacher(inputs.teacher_ND, Head(inputs.teacher_VD))
        return inputs.backward(
            fused(
                inputs.hidden_ND,
                inputs.head,
                inputs.columns,
                inputs.weight_N,
                Distill(),
                teacher=teacher,
            ).loss
        )

    yield work


@contextmanager
def selects(make: Make, keep: float, gives: Gives) -> Iterator[Work]:
    """All positions scored without a gradient, then the loss of those that TIP keeps."""
    inputs = make()

    def work() -> Numbers:
        teacher = Head(inputs.teacher_VD)
        names = ("entropy", "kl_reverse")
        scores = measure(
            inputs.hidden_ND,
            inputs.head,
            inputs.ids_N,
            names,
            teacher=Teacher(inputs.teacher_ND, teacher),
        )
        kept_N = inputs.chosen(scores, keep)
        fields = inputs.columns[kept_N]
        weight_K = inputs.weight_N[kept_N]
        kept_teacher = Teacher(inputs.teacher_ND[kept_N], teacher)
        numbers = inputs.backward(
            fused(
                inputs.hidden_ND[kept_N],
                inputs.head,
                fields,
                weight_K,
                Distill(),
                teacher=kept_teacher,
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
    """The matrix products of `selects`: two at every position to score, four at those kept."""
    inputs = make()

    def work() -> Numbers:
        if scored:
            _multiply(inputs, len(inputs.ids_N), backward=False)
        _multiply(inputs, round(keep * len(inputs.ids_N)), backward=True)
        return {"rows": float(len(inputs.ids_N))}

    yield work


@torch.no_grad()
def _multiply(inputs: Inputs, num_rows: int, *, backward: bool) -> None:
    """The products of the first positions with both heads, in chunks.

    In backward, the projection takes the place of its gradient, which has the same shape.
    """
    rows = slice(num_rows)
    teacher = Teacher(inputs.teacher_ND[rows], Head(inputs.teacher_VD))
    gradient = HeadGradient(
        inputs.hidden_ND[rows], inputs.head, hidden=backward, weight=backward, bias=False
    )
    for part in ChunkedLogits(
        inputs.hidden_ND[rows], inputs.head, inputs.ids_N[rows], TEMPERATURE, teacher
    ).chunks():
        assert len(part.teacher_raw_CU) == len(part.hidden_CD)
        gradient.add(part.rows, part.hidden_CD, part.raw_CV)


@contextmanager
def trl_distils(make: Make, tiles: Tiles | None, gives: Gives) -> Iterator[Work]:
    """TRL's divergence at every position (beta 1 is the reverse KL), which returns entropy too.

    `tiles` replaces the constants of TRL's module during the block.
    """
    inputs = make()
    shipped = (chunked_divergence.TOKEN_CHUNK_SIZE, chunked_divergence.VOCAB_CHUNK_SIZE)

    def work() -> Numbers:
        divergence_N, entropy_N = chunked_divergence.ChunkedDivergenceFunction.apply(
            inputs.hidden_ND,
            inputs.weight_VD,
            None,
            inputs.teacher_ND,
            inputs.teacher_VD,
            None,
            1.0,
            TEMPERATURE,
        )
        scores = {
            "entropy": float(entropy_N.sum()),
            "kl_reverse": float(divergence_N.detach().sum()),
        }
        numbers = inputs.backward((inputs.weight_N * divergence_N).sum())
        return numbers if gives == "loss" else scores

    try:
        chunked_divergence.TOKEN_CHUNK_SIZE, chunked_divergence.VOCAB_CHUNK_SIZE = tiles or shipped
        yield work
    finally:
        chunked_divergence.TOKEN_CHUNK_SIZE, chunked_divergence.VOCAB_CHUNK_SIZE = shipped


@contextmanager
def materialises(make: Make, keep: float) -> Iterator[Work]:
    """TIP in its simplest form: full logits of both models at all positions, and autograd."""
    inputs = make()

    def work() -> Numbers:
        logp_NV = (inputs.hidden_ND @ inputs.weight_VD.t()).float().log_softmax(-1)
        with torch.no_grad():
            logq_NV = (inputs.teacher_ND @ inputs.teacher_VD.t()).float().log_softmax(-1)
        kl_N = (logp_NV.exp() * (logp_NV - logq_NV)).sum(-1)
        with torch.no_grad():
            entropy_N = -(logp_NV.exp() * logp_NV).sum(-1)
        kept_N = inputs.chosen({"entropy": entropy_N, "kl_reverse": kl_N.detach()}, keep)
        return inputs.backward((inputs.weight_N * kept_N * kl_N).sum())

    yield work


def _known(policy: TokenStats, batch: TokenFields) -> Losses:
    """The loss -log p of each token, with its entropy as a statistic."""
    return Losses(loss=-policy.logp_N, stats={"entropy": policy.entropy_N})


@contextmanager
def scores_known(make: Make) -> Iterator[Work]:
    """Log-probs and entropy with loss weights that are known before the loss."""
    inputs = make()

    def work() -> Numbers:
        scored = fused(inputs.hidden_ND, inputs.head, inputs.columns, inputs.weight_N, _known)
        return {"entropy": float(scored.stats["entropy"]), **inputs.backward(scored.loss)}

    yield work


@contextmanager
def scores_later(make: Make) -> Iterator[Work]:
    """Log-probs with loss weights that depend on them, as in DPO: logits are computed twice."""
    inputs = make()

    def work() -> Numbers:
        logp_N = vocab.logp(inputs.hidden_ND, inputs.head, inputs.ids_N, temperature=TEMPERATURE)
        return inputs.backward(-(inputs.weight_N * logp_N).sum())

    yield work


@contextmanager
def trl_scores(make: Make, chunk: int, *, entropy: bool) -> Iterator[Work]:
    """TRL's log-probs, with the same outputs as the subject."""
    inputs = make()
    arguments = (None, inputs.ids_N, TEMPERATURE, chunk, None, 1.0, ("entropy",) if entropy else ())

    def work() -> Numbers:
        logp_N, entropy_N, *_ = ChunkedLogProbFunction.apply(
            inputs.hidden_ND, inputs.weight_VD, *arguments
        )
        stats = {"entropy": float(entropy_N.detach().sum())} if entropy else {}
        return {**stats, **inputs.backward(-(inputs.weight_N * logp_N).sum())}

    yield work
