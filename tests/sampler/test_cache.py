"""Columns written in place, and rows of several caches joined at their last column."""

from __future__ import annotations

import torch
from torch import tensor
from transformers.cache_utils import Cache

from reasontrain.sampler.cache import CacheSlice, Layer, join, new


def filled(rows: list[list[float]], spare: int = 1) -> Cache:
    """Two layers, one head, D = 1; values are ten times the keys, and the second layer's are
    negative.
    """
    keys = tensor(rows)[:, None, :, None]
    cache = new(2, keys.shape[2] + spare, None)
    cache.update(keys, 10 * keys, 0)
    cache.update(-keys, -10 * keys, 1)
    return cache


def keys(cache: Cache, index: int = 0) -> list[list[float]]:
    """The filled columns of a layer."""
    layer = cache.layers[index]
    return layer.keys[:, 0, : layer.length, 0].tolist()


def test_update_appends_in_place_and_shows_what_is_filled() -> None:
    cache = filled([[1.0, 2.0], [3.0, 4.0]])
    storage = cache.layers[0].keys.data_ptr()
    found, values = cache.update(
        tensor([[[[5.0]]], [[[6.0]]]]), tensor([[[[50.0]]], [[[60.0]]]]), 0
    )
    assert found[:, 0, :, 0].tolist() == [[1, 2, 5], [3, 4, 6]]
    assert values[:, 0, :, 0].tolist() == [[10, 20, 50], [30, 40, 60]]
    assert found.data_ptr() == storage
    assert (cache.get_seq_length(), cache.get_mask_sizes(2, 0), cache.get_max_length()) == (
        3,
        (5, 0),
        3,
    )


def test_join_drops_repeats_and_aligns() -> None:
    joined = join(
        [
            CacheSlice(filled([[0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 7.0]]), [1], 1),
            CacheSlice(filled([[8.0, 9.0]]), [0, 0], 0),
        ],
        5,
    )
    assert keys(joined) == [[5, 6, 7], [0, 8, 9], [0, 8, 9]]
    assert keys(joined, 1) == [[-5, -6, -7], [0, -8, -9], [0, -8, -9]]
    assert joined.layers[1].values[:, 0, :3, 0].tolist() == [
        [-50, -60, -70],
        [0, -80, -90],
        [0, -80, -90],
    ]
    assert joined.get_max_length() == 8


def test_the_stored_type_may_be_narrower() -> None:
    layer = Layer(2, torch.bfloat16)
    found, _ = layer.update(torch.ones(1, 1, 1, 1), torch.ones(1, 1, 1, 1))
    assert found.dtype == torch.bfloat16
