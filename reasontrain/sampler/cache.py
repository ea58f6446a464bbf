"""A key-value cache that is allocated ahead and written in place; rows end in one column, so that
all write to the same place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin


class Layer(CacheLayerMixin):
    """Keys and values of one attention layer, [B, heads, capacity, D], of which attention sees the
    filled part only.

    Layers with a sliding window keep every column too: as padding is on the left, the mask that
    transformers makes from the distances of columns is exact.
    """

    def __init__(self, capacity: int, dtype: torch.dtype | None) -> None:
        super().__init__()
        self.keys: Tensor | None = None
        self.values: Tensor | None = None
        self.column_1: Tensor | None = None
        self.capacity, self.dtype, self.length = capacity, dtype, 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate for rows like these."""
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
        """Append T columns; gives all that are filled.

        In a fixed layer (see `fix`), write to its column; gives all there are.
        """
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None
        assert self.values is not None
        if self.column_1 is not None:
            self.keys.index_copy_(2, self.column_1, key_states.to(self.keys.dtype))
            self.values.index_copy_(2, self.column_1, value_states.to(self.values.dtype))
            return self.keys, self.values
        start, self.length = self.length, self.length + key_states.shape[2]
        self.keys[:, :, start : self.length] = key_states
        self.values[:, :, start : self.length] = value_states
        return self.keys[:, :, : self.length], self.values[:, :, : self.length]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Columns that the next step sees, and the first of them."""
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        """Filled columns."""
        return self.length

    def get_max_length(self) -> int:
        """Columns there is room for."""
        return self.capacity


def new(num_layers: int, capacity: int, dtype: torch.dtype | None) -> Cache:
    """An empty cache that stores `dtype` (what it is given, where that is None)."""
    return Cache(layers=[Layer(capacity, dtype) for _ in range(num_layers)])


def fix(cache: Cache, column_1: Int[Tensor, " 1"]) -> None:
    """Let every layer show all its columns and write to the one that this tensor names: a shape
    that does not change.
    """
    for index in range(len(cache.layers)):
        _layer(cache, index).column_1 = column_1


def release(cache: Cache, length: int) -> None:
    """End what `fix` began: so many columns are filled."""
    for index in range(len(cache.layers)):
        layer = _layer(cache, index)
        layer.column_1, layer.length = None, length


@dataclass(frozen=True)
class CacheSlice:
    """Rows of a cache, in the order wanted (a row may come twice), without its first `drop`
    columns.
    """

    cache: Cache
    rows: list[int]
    drop: int

    @property
    def width(self) -> int:
        """Columns that remain."""
        return self.cache.get_seq_length() - self.drop


def join(parts: Sequence[CacheSlice], room: int) -> Cache:
    """The rows of all parts in one cache, aligned at their last column, with room for so many more.

    Consumes the parts layer by layer, so that never more than one layer exists twice.
    """
    width = max(part.width for part in parts)
    return Cache(
        layers=[
            _join_layer(parts, index, width, room) for index in range(len(parts[0].cache.layers))
        ]
    )


def _join_layer(parts: Sequence[CacheSlice], index: int, width: int, room: int) -> Layer:
    """One layer of `join`."""
    sources = [_layer(part.cache, index) for part in parts]
    joined = Layer(width + room, sources[0].dtype)
    joined.length, joined.is_initialized = width, True
    joined.keys = _aligned(
        [(source.keys, part) for source, part in zip(sources, parts, strict=True)], width, room
    )
    joined.values = _aligned(
        [(source.values, part) for source, part in zip(sources, parts, strict=True)], width, room
    )
    for source in sources:
        source.keys, source.values = None, None
    return joined


def _layer(cache: Cache, index: int) -> Layer:
    """A layer that we made."""
    layer = cache.layers[index]
    assert isinstance(layer, Layer)
    return layer


def _aligned(
    stored: Sequence[tuple[Tensor | None, CacheSlice]], width: int, room: int
) -> Float[Tensor, "B H S D"]:
    """Rows of several tensors below each other, with zeros (which a mask can hide, as it cannot
    hide NaN) on the left.
    """
    first = stored[0][0]
    assert first is not None
    num_rows = sum(len(part.rows) for _, part in stored)
    joined = first.new_zeros((num_rows, first.shape[1], width + room, first.shape[3]))
    start = 0
    for source, part in stored:
        assert source is not None
        stop, length = start + len(part.rows), part.drop + part.width
        index = torch.tensor(part.rows, device=source.device)
        joined[start:stop, :, width - part.width : width] = source[
            :, :, part.drop : length
        ].index_select(0, index)
        start = stop
    return joined
