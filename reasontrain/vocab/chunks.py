"""How rows are cut: chunks, for which matrix products are made, and blocks of a chunk, which fit a
processor's cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from reasontrain.vocab.analytic import BufferPool, Distribution
from reasontrain.vocab.backend import Statistics, has_kernels
from reasontrain.vocab.full_logits import WholeDistribution
from reasontrain.vocab.head import Head, Teacher

CHUNK_FLOATS_CPU = 2**24
CHUNK_FLOATS_GPU = 2**26
BLOCK_FLOATS_CPU = 2**20
"""4 MB: a block is read a dozen times, from the cache and not from memory, and threads have enough
of it to share that waking them costs little. A GPU takes the chunk whole.
"""


def spans(num_rows: int, size: int) -> Iterator[slice]:
    """Cuts of nearly equal size, at most `size` rows, the first one the largest; one empty cut
    where there are no rows.
    """
    num_cuts = max(1, -(-num_rows // size))
    even = -(-num_rows // num_cuts)
    for start in range(0, max(1, num_rows), max(1, even)):
        yield slice(start, min(start + even, num_rows))


class Projection:
    """Projects one chunk of hidden states after another, always into the same memory."""

    def __init__(self, head: Head) -> None:
        self.head = head
        self._memory_CV: Tensor | None = None

    def __call__(self, hidden_CD: Float[Tensor, "C D"]) -> Float[Tensor, "C V"]:
        """h W^T + b; the previous result is overwritten."""
        if self._memory_CV is None:
            self._memory_CV = self.head.project(hidden_CD)
            return self._memory_CV
        return self.head.project(hidden_CD, self._memory_CV[: len(hidden_CD)])


@dataclass(frozen=True, eq=False)
class Scan:
    """What is read chunk by chunk: rows of hidden states through a head, with a teacher's beside
    them where there is one.

    Rows outside `keep_N` enter as zeros, so that what they hold cannot overflow.
    """

    hidden_ND: Float[Tensor, "N D"]
    head: Head
    ids_N: Int[Tensor, " N"]
    temperature: float
    teacher: Teacher | None = None
    chunk: int | None = None
    keep_N: Bool[Tensor, " N"] | None = None
    scratch: BufferPool = field(default_factory=BufferPool)

    def chunks(self) -> Iterator[Chunk]:
        """All rows in order, at least one chunk.

        They share memory: a chunk is dead when the next one comes.
        """
        assert self.temperature > 0, "at temperature zero there is no distribution"
        floats = CHUNK_FLOATS_CPU if self.hidden_ND.device.type == "cpu" else CHUNK_FLOATS_GPU
        size = self.chunk if self.chunk is not None else max(1, floats // self.head.width)
        student = Projection(self.head)
        teacher = None if self.teacher is None else Projection(self.teacher.head)
        for rows in spans(len(self.hidden_ND), size):
            yield Chunk(self, rows, student, teacher)

    def distributions(self) -> Iterator[Statistics | WholeDistribution]:
        """The same rows as distributions to be read and not changed: one a block, or all in one
        where the head says `whole`.
        """
        if self.head.vocabulary == "full_logits":
            yield WholeDistribution(
                self.hidden_ND, self.head, self.ids_N, self.temperature, self.teacher
            )
            return
        for part in self.chunks():
            for block in part.blocks():
                yield block.distribution

    def part(self, tensor_ND: Float[Tensor, "N D"], rows: slice) -> Float[Tensor, "C D"]:
        """A chunk of hidden states."""
        part_CD = tensor_ND.detach()[rows]
        return part_CD if self.keep_N is None else part_CD.masked_fill(~self.keep_N[rows, None], 0)


class Chunk:
    """Some rows: their hidden states, and their projection `raw_CV`, which becomes its own gradient
    block by block.
    """

    def __init__(
        self, scan: Scan, rows: slice, student: Projection, teacher: Projection | None
    ) -> None:
        self.scan, self.rows, self._teacher = scan, rows, teacher
        self.hidden_CD = scan.part(scan.hidden_ND, rows)
        self.raw_CV = student(self.hidden_CD)

    @cached_property
    def teacher_raw_CU(self) -> Float[Tensor, "C U"]:
        """The teacher's projection, made when a divergence is first asked for."""
        assert self._teacher is not None
        assert self.scan.teacher is not None
        return self._teacher(self.scan.part(self.scan.teacher.hidden_ND, self.rows))

    def teacher_logits(self, block: slice) -> Float[Tensor, "N U"]:
        """The teacher's logits of one block; each block asks once."""
        assert self._teacher is not None
        logits_NU = self.teacher_raw_CU[block]
        self._teacher.head.transform_(logits_NU, self.scan.temperature)
        return logits_NU

    def blocks(self) -> Iterator[Block]:
        """The chunk's rows in order, at least one block."""
        scan = self.scan
        on_cpu = self.raw_CV.device.type == "cpu"
        for block in spans(
            len(self.raw_CV),
            max(1, BLOCK_FLOATS_CPU // scan.head.width) if on_cpu else max(1, len(self.raw_CV)),
        ):
            rows = slice(self.rows.start + block.start, self.rows.start + block.stop)
            teacher = None if self._teacher is None else partial(self.teacher_logits, block)
            yield Block(scan, rows, self.raw_CV[block], teacher)


class Block:
    """Some rows of a chunk while their logits are alive, small enough to stay in a processor's
    cache.
    """

    def __init__(
        self, scan: Scan, rows: slice, raw_NV: Float[Tensor, "N V"], teacher: partial[Tensor] | None
    ) -> None:
        self.rows, self._raw_NV = rows, raw_NV
        self._scan, self._teacher = scan, teacher
        self._slope = scan.head.scale / scan.temperature
        self._tanh_NV = scan.head.transform_(raw_NV, scan.temperature)

    @cached_property
    def distribution(self) -> Statistics:
        """By kernels where the head's choice and this machine allow them, over one set of float32
        ids; else in closed form.

        Whatever the choice, heads of two widths and float64 are left to the closed form.
        """
        head, teacher = self._scan.head, self._scan.teacher
        one_width = teacher is None or teacher.head.width == head.width
        if (
            not one_width
            or self._raw_NV.dtype != torch.float32
            or not has_kernels(head.vocabulary, self._raw_NV.device)
        ):
            return self.closed_form
        from reasontrain.vocab.triton_backend import TiledDistribution  # Triton is not everywhere

        return TiledDistribution(self._raw_NV, self._scan.ids_N[self.rows], self._teacher)

    @cached_property
    def closed_form(self) -> Distribution:
        """What gives log p itself too; it takes over the projection's memory, so a block is asked
        for one of the two.
        """
        return Distribution(
            self._raw_NV, self._scan.ids_N[self.rows], self._teacher, self._scan.scratch
        )

    def write_gradient(self, stat_grads: Mapping[str, Float[Tensor, " N"]]) -> None:
        """Overwrite the projection with its gradient, given the loss's slope along each statistic.

        Uses the block up.
        """
        gradient_NV = self.distribution.gradient(
            {name: slope_N * self._slope for name, slope_N in stat_grads.items()}
        )
        if self._tanh_NV is not None:
            gradient_NV.mul_(
                self._tanh_NV.square_().neg_().add_(1)
            )  # d (softcap * tanh(x / softcap)) / dx
        if gradient_NV.data_ptr() != self._raw_NV.data_ptr() or not len(gradient_NV):
            self._raw_NV.copy_(gradient_NV)
