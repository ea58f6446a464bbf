"""The loss at the head: hidden states in, loss and gradients out, beside TRL's own kernels on the same tensors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor
from trl.kernels import ChunkedLogProbFunction
from trl.kernels.chunked_divergence import ChunkedDivergenceFunction

from reasontrain.bench.row import Goal, Numbers, Place, Row, Setting, Side, Way, Work
from reasontrain.objectives import Distill, Nll
from reasontrain.types import RowColumns
from reasontrain.vocab import Head, Teacher, fused

TEMPERATURE = 1.0


@dataclass(frozen=True, kw_only=True)
class Size:
    """N rows, V ids and hidden states of width H, in one dtype."""

    rows: int
    vocabulary: int
    hidden: int
    dtype: torch.dtype

    def settings(self) -> dict[str, Setting]:
        """As the record has it."""
        return {"N": self.rows, "V": self.vocabulary, "H": self.hidden, "dtype": str(self.dtype).removeprefix("torch.")}


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
    def drawn(cls, size: Size, device: torch.device) -> Inputs:
        """States of unit variance and heads that give logits of about unit variance, by a seed."""
        draw = torch.Generator(device).manual_seed(0)
        normal = partial(torch.randn, generator=draw, device=device)
        states = [normal(size.rows, size.hidden).to(size.dtype) for _ in range(2)]
        heads = [(normal(size.vocabulary, size.hidden) / size.hidden**0.5).to(size.dtype) for _ in range(2)]
        return cls(
            hidden_ND=states[0].requires_grad_(),
            weight_VD=heads[0].requires_grad_(),
            teacher_ND=states[1],
            teacher_VD=heads[1],
            ids_N=torch.randint(size.vocabulary, (size.rows,), generator=draw, device=device),
            weight_N=torch.rand(size.rows, generator=draw, device=device),
        )

    def backward(self, loss: Tensor) -> Numbers:
        """The loss and the size of its two gradients."""
        dhidden_ND, dweight_VD = torch.autograd.grad(loss, (self.hidden_ND, self.weight_VD))
        return {"loss": float(loss.detach()), "dhidden": float(dhidden_ND.norm()), "dweight": float(dweight_VD.norm())}


def rows(place: Place) -> Sequence[Row]:
    """Distillation and log-probabilities, at the size of a model on a GPU or of a small one on a CPU."""
    if place.device.type == "cuda":
        size, ratio = Size(rows=8192, vocabulary=151_936, hidden=4096, dtype=torch.bfloat16), 0.75
    else:
        size, ratio = Size(rows=1024, vocabulary=32_000, hidden=512, dtype=torch.float32), 0.35
    return [_distil(size, place, ratio), _logp(size, place)]


def _distil(size: Size, place: Place, at_most: float) -> Row:
    inputs = partial(Inputs.drawn, size, place.device)
    return Row(
        name="distil",
        what="reverse KL of student to teacher at every row, forward and backward",
        work=size.settings(),
        units=("rows", size.rows),
        ours=Side(name="reasontrain", ways=(Way(settings={}, ready=partial(_ours_distils, inputs)),)),
        peer=Side(name="TRL ChunkedDivergenceFunction", ways=(Way(settings={}, ready=partial(_trl_distils, inputs)),)),
        tolerance=1e-4,
        goals=(Goal(of="time", at_most=at_most), Goal(of="memory", at_most=1.0)),
    )


def _logp(size: Size, place: Place) -> Row:
    inputs = partial(Inputs.drawn, size, place.device)
    chunks = (8192,) if place.quick else (4096, 8192, 32768)
    return Row(
        name="logp",
        what="log-probability of the token at every row, with coefficients that are known beforehand, forward and backward",
        work=size.settings(),
        units=("rows", size.rows),
        ours=Side(name="reasontrain", ways=(Way(settings={}, ready=partial(_ours_scores, inputs)),)),
        peer=Side(
            name="TRL ChunkedLogProbFunction",
            ways=tuple(Way(settings={"chunk": chunk}, ready=partial(_trl_scores, inputs, chunk)) for chunk in chunks),
        ),
        tolerance=1e-4,
        goals=(Goal(of="time", at_most=0.75),),
    )


@contextmanager
def _ours_distils(make: partial[Inputs]) -> Iterator[Work]:
    """The gradient is formed in the forward pass."""
    given = make()
    columns = RowColumns(ids_N=given.ids_N, advantage_N=torch.zeros_like(given.weight_N))

    def work() -> Numbers:
        teacher = Teacher(given.teacher_ND, Head(given.teacher_VD))
        found = fused(given.hidden_ND, Head(given.weight_VD), columns, given.weight_N, Distill(), teacher=teacher)
        return given.backward(found.loss)

    yield work


@contextmanager
def _trl_distils(make: partial[Inputs]) -> Iterator[Work]:
    """beta 1 is the reverse KL."""
    given = make()

    def work() -> Numbers:
        both = (given.hidden_ND, given.weight_VD, None), (given.teacher_ND, given.teacher_VD, None)
        divergence_N, _ = ChunkedDivergenceFunction.apply(*both[0], *both[1], 1.0, TEMPERATURE)
        return given.backward((given.weight_N * divergence_N).sum())

    yield work


@contextmanager
def _ours_scores(make: partial[Inputs]) -> Iterator[Work]:
    """The same function that trains on demonstrations."""
    given = make()
    columns = RowColumns(ids_N=given.ids_N, advantage_N=torch.zeros_like(given.weight_N))

    def work() -> Numbers:
        return given.backward(fused(given.hidden_ND, Head(given.weight_VD), columns, given.weight_N, Nll()).loss)

    yield work


@contextmanager
def _trl_scores(make: partial[Inputs], chunk: int) -> Iterator[Work]:
    """Without the outputs that nobody asked for."""
    given = make()

    def work() -> Numbers:
        logp_N, *_ = ChunkedLogProbFunction.apply(
            given.hidden_ND, given.weight_VD, None, given.ids_N, TEMPERATURE, chunk, None, 1.0, ()
        )
        return given.backward(-(given.weight_N * logp_N).sum())

    yield work
