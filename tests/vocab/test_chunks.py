"""How positions are cut into chunks, on CPUs and on GPUs that are not here."""

from __future__ import annotations

import pytest

from reasontrain.vocab.chunks import (
    CHUNK_FLOATS_CPU,
    CHUNK_FLOATS_GPU,
    TILE_ROWS,
    chunk_size,
    chunk_spans,
)


@pytest.mark.parametrize(
    ("width", "rows"),
    [
        (151_936, 768),  # Qwen3; 2^27 / 151,936 are 883
        (128_256, 1024),  # Llama 3; 1,046
        (32_000, 4096),  # 4,194
        (2**20, 256),  # one tile, though it exceeds the memory of a chunk
    ],
)
def test_a_chunk_on_a_gpu_fills_its_tiles(width: int, rows: int) -> None:
    assert chunk_size(width, gpu=True) == rows


@pytest.mark.parametrize("num_rows", [0, 1, 255, 256, 769, 1000, 4097, 8192, 20_000])
@pytest.mark.parametrize("width", [2_000, 32_000, 128_256, 151_936, 2**18])
@pytest.mark.parametrize("gpu", [True, False])
def test_chunks_cover_every_position_once_and_only_the_last_leaves_a_tile_partly_empty(
    num_rows: int, width: int, gpu: bool
) -> None:
    cut = list(chunk_spans(num_rows, width, gpu=gpu))
    assert [i for rows in cut for i in range(rows.start, rows.stop)] == list(range(num_rows))
    sizes = [rows.stop - rows.start for rows in cut]
    assert max(sizes) == sizes[0]
    assert max(sizes) * width <= (CHUNK_FLOATS_GPU if gpu else max(CHUNK_FLOATS_CPU, width))
    if gpu:
        assert all(size % TILE_ROWS == 0 for size in sizes[:-1])
        assert len(sizes) == max(1, -(-num_rows // chunk_size(width, gpu=True)))
    else:
        assert max(sizes) - min(sizes) <= len(sizes)  # nearly equal


def test_a_size_that_is_given_is_kept() -> None:
    cut = list(chunk_spans(10, 151_936, gpu=True, chunk=4))
    assert [(rows.start, rows.stop) for rows in cut] == [(0, 4), (4, 8), (8, 10)]
