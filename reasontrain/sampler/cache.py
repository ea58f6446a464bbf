"""A key-value cache that is allocated in advance and written in place.

Layout of a layer: [B, heads, capacity, D]. Prompts are padded on the left, so the newest token of
every sequence is in the same column, and a decode step is one slice write at the same offset for
all sequences. `join` merges caches of different lengths by aligning them at their last column.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin


class Layer(CacheLayerMixin):
    """Keys and values of one attention layer; attention sees only the filled columns.

    Layers with a sliding window keep every column too. Because the padding is on the left, the mask
    that transformers derives from the distances between columns is exact.
    """

    def __init__(self, capacity: int, dtype: torch.dtype | None) -> None:
        super().__init__()
        self.keys: Tensor | None = None
        self.values: Tensor | None = None
        self.column_1: Tensor | None = None
        self.capacity = capacity
        self.dtype = dtype
        self.length = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate for the batch size, heads and widths of these states."""
        self.keys, self.values = (
            states.new_zeros((*states.shape[:2], self.capacity, states.shape[3]), dtype=self.dtype)
            for states in (key_states, value_states)
        )
        self.is_initialized = True

    def update(
        self,
        key_states: Float[Tensor, "B H T D"],
        value_states: Float[Tensor, "B H T D2"],
        *args: object,
        **kwargs: object,
    ) -> tuple[Float[Tensor, "B H S D"], Float[Tensor, "B H S D2"]]:
        """Append T columns and return all S filled columns.

        If the shape is fixed (see `fix_shape`), write to the current column and return the whole
        capacity; the caller masks the columns that are not filled.
        """
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None
        assert self.values is not None
        if self.column_1 is not None:
            self.keys.index_copy_(2, self.column_1, key_states.to(self.keys.dtype))
            self.values.index_copy_(2, self.column_1, value_states.to(self.values.dtype))
            return self.keys, self.values
        start = self.length
        self.length += key_states.shape[2]
        self.keys[:, :, start : self.length] = key_states
        self.values[:, :, start : self.length] = value_states
        return self.keys[:, :, : self.length], self.values[:, :, : self.length]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """The number of columns visible to the next step, and the index of the first."""
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        """The number of filled columns."""
        return self.length

    def get_max_length(self) -> int:
        """The number of allocated columns."""
        return self.capacity


def new(num_layers: int, capacity: int, dtype: torch.dtype | None) -> Cache:
    """Return an empty cache that stores `dtype`; None keeps the dtype of the states."""
    return Cache(layers=[Layer(capacity, dtype) for _ in range(num_layers)])


def fix_shape(cache: Cache, column_1: Int[Tensor, " 1"]) -> None:
    """Make every layer return its whole capacity and write to the column in `column_1`.

    Shapes then stay the same from step to step, as a CUDA graph needs. The column is a tensor, so
    that a replay reads its current value.
    """
    for index in range(len(cache.layers)):
        _layer(cache, index).column_1 = column_1


def release_shape(cache: Cache, length: int) -> None:
    """Undo `fix_shape`; `length` is the number of filled columns."""
    for index in range(len(cache.layers)):
        layer = _layer(cache, index)
        layer.column_1 = None
        layer.length = length


@dataclass(frozen=True)
class CacheSlice:
    """Rows of a cache, without its first `drop` columns.

    Rows may be in any order and may occur several times: until they are joined, the rollouts of a
    group share the cache row of their prompt.
    """

    cache: Cache
    rows: list[int]
    drop: int

    @property
    def width(self) -> int:
        """The number of remaining columns."""
        return self.cache.get_seq_length() - self.drop


def join(parts: Sequence[CacheSlice], room: int) -> Cache:
    """Join the rows of all parts, aligned at their last column, and allocate `room` more columns.

    Consumes the parts layer by layer, so that at most one layer exists twice at any time.
    """
    width = max(part.width for part in parts)
    return Cache(
        layers=[
            _join_layer(parts, index, width, room) for index in range(len(parts[0].cache.layers))
        ]
    )


def _join_layer(parts: Sequence[CacheSlice], index: int, width: int, room: int) -> Layer:
    """Join one layer of all parts."""
    sources = [_layer(part.cache, index) for part in parts]
    joined = Layer(width + room, sources[0].dtype)
    joined.length = width
    joined.is_initialized = True
    joined.keys = _aligned(
        [(source.keys, part) for source, part in zip(sources, parts, strict=True)], width, room
    )
    joined.values = _aligned(
        [(source.values, part) for source, part in zip(sources, parts, strict=True)], width, room
    )
    for source in sources:
        # frees this layer now; `parts` still holds the rest of its cache
        source.keys = None
        source.values = None
    return joined


def _layer(cache: Cache, index: int) -> Layer:
    """The layer at `index`, as the class of this module."""
    layer = cache.layers[index]
    assert isinstance(layer, Layer)
    return layer


def _aligned(
    stored: Sequence[tuple[Tensor | None, CacheSlice]], width: int, room: int
) -> Float[Tensor, "B H S D"]:
    """Stack rows of several tensors, with zeros on the left and in `room` columns on the right."""
    first = stored[0][0]
    assert first is not None
    num_rows = sum(len(part.rows) for _, part in stored)
    # Zeros, not empty memory: a masked column has weight 0, and 0 * NaN is NaN.
    joined = first.new_zeros((num_rows, first.shape[1], width + room, first.shape[3]))
    start = 0
    for source, part in stored:
        assert source is not None
        stop = start + len(part.rows)
        length = part.drop + part.width
        index = torch.tensor(part.rows, device=source.device)
        joined[start:stop, :, width - part.width : width] = source[
            :, :, part.drop : length
        ].index_select(0, index)
        start = stop
    return joined
