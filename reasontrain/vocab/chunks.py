"""Logits of N positions, computed chunk by chunk for matrix products, block by block for caches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from reasontrain.vocab.analytic import AnalyticDistribution, BufferPool
from reasontrain.vocab.backend import BlockDistribution, uses_triton
from reasontrain.vocab.full_logits import FullLogitsDistribution
from reasontrain.vocab.head import Head, Teacher
from reasontrain.vocab.mixture import AnyTeacher, MixedTeacher
from reasontrain.vocab.sampled import SampledDistribution, SampledTeacher
from reasontrain.vocab.top_k import TopKDistribution, TopKTeacher

CHUNK_FLOATS_CPU = 2**24
CHUNK_FLOATS_GPU = 2**27
"""Logits of a chunk, 64 MiB on a CPU and 512 MiB on a GPU in fp32.

That is enough positions for an efficient matrix product, and few enough to bound memory.
"""
TILE_ROWS = 256
"""Positions of a chunk on a GPU are a multiple of this: its matrix products work on tiles of 128 or
256 rows, and a tile that is partly empty takes as long as a full one."""
BLOCK_FLOATS_CPU = 2**20
"""Logits of a block on a CPU: 4 MiB in fp32.

They stay in the cache while a dozen operations read them, and are enough work per thread to
outweigh the cost of waking it. On a GPU a block is the whole chunk.
"""


def spans(num_rows: int, size: int, multiple: int = 1) -> Iterator[slice]:
    """Slices of nearly equal length, at most `size`, longest first; one empty slice for no rows.

    All but the last are a multiple of `multiple` long, which divides `size`.
    """
    num_cuts = max(1, -(-num_rows // size))
    even = -(-num_rows // num_cuts)
    even = -(-even // multiple) * multiple
    for start in range(0, max(1, num_rows), max(1, even)):
        yield slice(start, min(start + even, num_rows))


def chunk_size(width: int, *, gpu: bool) -> int:
    """The most positions of a chunk, for a vocabulary of this width."""
    if not gpu:
        return max(1, CHUNK_FLOATS_CPU // width)
    return max(1, CHUNK_FLOATS_GPU // width // TILE_ROWS) * TILE_ROWS


def chunk_spans(
    num_rows: int, width: int, *, gpu: bool, chunk: int | None = None
) -> Iterator[slice]:
    """The positions of each chunk, the longest chunk first.

    Args:
        num_rows: number of positions.
        width: number of token ids.
        gpu: hidden states lie on a GPU.
        chunk: the most positions of a chunk; None chooses.
    """
    if chunk is not None:
        return spans(num_rows, chunk)
    return spans(num_rows, chunk_size(width, gpu=gpu), TILE_ROWS if gpu else 1)


class Projection:
    """The projection of hidden states through a head, always into the same memory."""

    def __init__(self, head: Head) -> None:
        self.head = head
        self._memory_CV: Tensor | None = None

    def __call__(self, hidden_CD: Float[Tensor, "C D"]) -> Float[Tensor, "C V"]:
        """h W^T + b; overwrites the previous result.

        The first chunk is the longest (see `spans`), so its memory holds every later one.
        """
        if self._memory_CV is None:
            self._memory_CV = self.head.project(hidden_CD)
            return self._memory_CV
        return self.head.project(hidden_CD, self._memory_CV[: len(hidden_CD)])


@dataclass(frozen=True, eq=False)
class ChunkedLogits:
    """One pass over the logits of N positions, optionally with a teacher's.

    Attributes:
        hidden_ND: hidden states that predict `ids_N`.
        head: the student's head.
        ids_N: the token at each position.
        temperature: divides the logits of both models.
        teacher: hidden states at the same positions, and their head; those of several models; or
            log-probabilities of a few ids there.
        chunk: positions per matrix product; None chooses by `CHUNK_FLOATS_*`.
        keep_N: hidden states outside it are replaced by zeros, so that their content cannot
            overflow.
        buffers: work buffers shared by all blocks of the pass.
    """

    hidden_ND: Float[Tensor, "N D"]
    head: Head
    ids_N: Int[Tensor, " N"]
    temperature: float
    teacher: AnyTeacher | None = None
    chunk: int | None = None
    keep_N: Bool[Tensor, " N"] | None = None
    buffers: BufferPool = field(default_factory=BufferPool)

    def chunks(self) -> Iterator[Chunk]:
        """All positions in order, in at least one chunk.

        Chunks share memory: the next one overwrites the previous.
        """
        assert self.temperature > 0, "at temperature zero there is no distribution"
        gpu = self.hidden_ND.device.type != "cpu"
        student = Projection(self.head)
        teacher = Projection(self.teacher.head) if isinstance(self.teacher, Teacher) else None
        num_rows = len(self.hidden_ND)
        for rows in chunk_spans(num_rows, self.head.width, gpu=gpu, chunk=self.chunk):
            yield Chunk(self, rows, student, teacher)

    def distributions(self) -> Iterator[BlockDistribution | FullLogitsDistribution]:
        """All positions in order as distributions to read values from.

        One per block; a single one for all positions if the head's backend is `full_logits`.
        """
        if self.head.vocabulary == "full_logits":
            yield FullLogitsDistribution(
                self.hidden_ND, self.head, self.ids_N, self.temperature, self.teacher
            )
            return
        for chunk in self.chunks():
            for block in chunk.blocks():
                yield block.distribution

    def chunk_of(self, tensor_ND: Float[Tensor, "N D"], rows: slice) -> Float[Tensor, "C D"]:
        """The hidden states of one chunk, with zeros outside `keep_N`."""
        chunk_CD = tensor_ND.detach()[rows]
        return (
            chunk_CD if self.keep_N is None else chunk_CD.masked_fill(~self.keep_N[rows, None], 0)
        )


class Chunk:
    """C positions: their hidden states and the projection `raw_CV`.

    Blocks are views of `raw_CV`: they turn it into logits, log-probabilities and finally into its
    own gradient.
    """

    def __init__(
        self,
        logits: ChunkedLogits,
        rows: slice,
        student: Projection,
        teacher: Projection | None,
    ) -> None:
        self.rows = rows
        self._logits = logits
        self._teacher = teacher
        self.hidden_CD = logits.chunk_of(logits.hidden_ND, rows)
        self.raw_CV = student(self.hidden_CD)

    @cached_property
    def teacher_raw_CU(self) -> Float[Tensor, "C U"]:
        """The teacher's projection, computed when a divergence is first needed."""
        assert self._teacher is not None
        assert isinstance(self._logits.teacher, Teacher)
        return self._teacher(self._logits.chunk_of(self._logits.teacher.hidden_ND, self.rows))

    def teacher_logits(self, block: slice) -> Float[Tensor, "N U"]:
        """The teacher's logits of one block, transformed in place: call once per block."""
        assert self._teacher is not None
        logits_NU = self.teacher_raw_CU[block]
        self._teacher.head.transform_(logits_NU, self._logits.temperature)
        return logits_NU

    def blocks(self) -> Iterator[Block]:
        """The chunk's positions in order, in at least one block."""
        if self.raw_CV.device.type == "cpu":
            size = max(1, BLOCK_FLOATS_CPU // self._logits.head.width)
        else:
            size = max(1, len(self.raw_CV))
        for block in spans(len(self.raw_CV), size):
            rows = slice(self.rows.start + block.start, self.rows.start + block.stop)
            yield Block(self._logits, rows, self.raw_CV[block], self._teacher_of(block, rows))

    def _teacher_of(self, block: slice, rows: slice) -> Callable[[], Tensor] | None:
        """The teacher's logits of one block: positions `block` of the chunk, `rows` of all."""
        teacher = self._logits.teacher
        if isinstance(teacher, MixedTeacher):
            return partial(teacher.logits, rows, self._logits.temperature, self._logits.keep_N)
        return None if self._teacher is None else partial(self.teacher_logits, block)


class Block:
    """Some positions of a chunk while their logits are alive."""

    def __init__(
        self,
        logits: ChunkedLogits,
        rows: slice,
        raw_NV: Float[Tensor, "N V"],
        teacher: Callable[[], Tensor] | None,
    ) -> None:
        """Turn `raw_NV`, a view of the chunk's projection, into logits in place."""
        self.rows = rows
        self._logits = logits
        self._raw_NV = raw_NV
        self._teacher = teacher
        # d logits / d raw, apart from the softcap's derivative.
        self._raw_scale = logits.head.scale / logits.temperature
        self._tanh_NV = logits.head.transform_(raw_NV, logits.temperature)

    @cached_property
    def distribution(self) -> BlockDistribution:
        """The block's distribution by the backend of the head.

        Heads of two vocabulary sizes, float64 and a teacher of a few ids never use Triton: the
        kernels compare equal sizes, in float32.
        """
        head = self._logits.head
        teacher = self._logits.teacher
        if isinstance(teacher, TopKTeacher):
            return TopKDistribution(
                self._raw_NV,
                self._logits.ids_N[self.rows],
                teacher[self.rows],
                self._logits.buffers,
                head.num_tokens,
            )
        if isinstance(teacher, SampledTeacher):
            return SampledDistribution(
                self._raw_NV,
                self._logits.ids_N[self.rows],
                teacher[self.rows],
                self._logits.buffers,
            )
        one_width = teacher is None or teacher.width == head.width
        if (
            not one_width
            or self._raw_NV.dtype != torch.float32
            or not uses_triton(head.vocabulary, self._raw_NV.device)
        ):
            return self.analytic
        # Imported late: Triton does not exist for every platform.
        from reasontrain.vocab.triton_backend import TritonDistribution

        return TritonDistribution(self._raw_NV, self._logits.ids_N[self.rows], self._teacher)

    @cached_property
    def analytic(self) -> AnalyticDistribution:
        """The block's distribution with log p itself.

        It takes over the memory that `distribution` would read, so use only one of the two.
        """
        return AnalyticDistribution(
            self._raw_NV, self._logits.ids_N[self.rows], self._teacher, self._logits.buffers
        )

    def write_gradient(self, stat_grads: Mapping[str, Float[Tensor, " N"]]) -> None:
        """Overwrite the projection with its gradient, given d loss / d statistic by name.

        Call once; the block's values are gone afterwards.
        """
        gradient_NV = self.distribution.gradient(
            {name: grad_N * self._raw_scale for name, grad_N in stat_grads.items()}
        )
        if self._tanh_NV is not None:
            # d (softcap * tanh(x / softcap)) / dx = 1 - tanh^2
            gradient_NV.mul_(self._tanh_NV.square_().neg_().add_(1))
        # Backends mostly write the gradient where the logits were; then there is nothing to copy.
        if gradient_NV.data_ptr() != self._raw_NV.data_ptr() or not len(gradient_NV):
            self._raw_NV.copy_(gradient_NV)
