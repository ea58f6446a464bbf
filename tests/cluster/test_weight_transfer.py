"""Weights over a line: everything arrives, and both ends know when it did not."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given
from hypothesis.strategies import integers
from torch import Tensor

from reasontrain.cluster.weight_transfer import (
    CHECK_MODULUS,
    TransferChecksum,
    WeightBroadcast,
    _updated,
)
from tests.peak_bytes import PeakBytes

CPU = torch.device("cpu")
NAMED = {
    "a": torch.arange(6.0).reshape(2, 3),
    "b": torch.tensor([1.5, -2.0]),
    "c": torch.zeros(0),
    "d": torch.tensor([3.0]),
}
SLOTS = [(name, tuple(tensor.shape)) for name, tensor in NAMED.items()]


def ends(size: int) -> list[WeightBroadcast]:
    """Rank 0 and all others, on loopback."""
    first = WeightBroadcast("127.0.0.1", 0, 0, size, 20.0)
    with ThreadPoolExecutor(size) as threads:
        rest = [
            threads.submit(WeightBroadcast, "127.0.0.1", first.port, rank, size, 20.0)
            for rank in range(1, size)
        ]
        channels = [first, *(channel.result() for channel in rest)]
        list(threads.map(lambda channel: channel.connect(CPU), channels))
    return channels


def transfer(
    channels: list[WeightBroadcast], version: int, dtype: torch.dtype
) -> tuple[TransferChecksum, list[dict[str, Tensor]]]:
    with ThreadPoolExecutor(len(channels)) as threads:
        sending = threads.submit(channels[0].send, version, iter(NAMED.items()), dtype)
        got = list(
            threads.map(
                lambda channel: dict(channel.receive(version, SLOTS, dtype, CPU)), channels[1:]
            )
        )
        return sending.result(), got


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_tensor_arrives_at_every_end_and_the_receipts_are_equal(dtype: torch.dtype) -> None:
    channels = ends(3)
    for version in (4, 5):  # a line is used again
        sent, got = transfer(channels, version, dtype)
        assert (sent.version, sent.num_tensors) == (version, 4)
        for channel, tensors in zip(channels[1:], got, strict=True):
            assert channel.checksum == sent
            assert tensors.keys() == NAMED.keys()
            assert all(torch.equal(tensors[name], NAMED[name].to(dtype)) for name in NAMED)


def checksum(named: dict[str, Tensor]) -> int:
    total = 0
    for name, tensor in named.items():
        total = _updated(total, name, tensor)
    return total


@given(seed=integers(0, 10_000), place=integers(0, 5), other=integers(0, 5))
def test_a_changed_number_or_two_swapped_ones_move_the_checksum(
    seed: int, place: int, other: int
) -> None:
    sent_N = torch.randn(6, generator=torch.Generator().manual_seed(seed))
    changed_N, swapped_N = sent_N.clone(), sent_N.clone()
    changed_N[place] += 1
    swapped_N[[place, other]] = swapped_N[[other, place]]
    assert checksum({"a": changed_N}) != checksum({"a": sent_N})
    assert (checksum({"a": swapped_N}) == checksum({"a": sent_N})) == (place == other)


def test_a_swapped_renamed_or_missing_tensor_moves_the_checksum() -> None:
    a, b = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])
    known = checksum({"a": a, "b": b})
    assert checksum({"a": b, "b": a}) != known
    assert checksum({"a": a, "c": b}) != known
    assert checksum({"a": a}) != known
    assert checksum({"a": a.bfloat16(), "b": b.bfloat16()}) != known


def test_a_checksum_by_hand() -> None:
    """1.0 is 0x3F800000 and 0.0 is 0, by places 1 and 2; "a" is 97."""
    assert _updated(2, "a", torch.tensor([0.0, 1.0])) == 2 * 1_000_003 + 2 * 0x3F800000 + 97


def test_the_checksum_of_a_large_tensor_needs_little_memory_and_is_the_same_formula() -> None:
    """Whole, 8 MB of bfloat16 took 96 MB; what a slice takes does not grow with the tensor."""
    large_N = torch.arange(4 << 20).remainder_(1009).bfloat16()
    words_N = large_N.view(torch.int16).long()
    places_N = torch.arange(len(words_N)) % 65521 + 1
    expected = (int((words_N * places_N).sum()) + sum(b"a")) % CHECK_MODULUS
    with PeakBytes() as peak:
        assert _updated(0, "a", large_N) == expected
    assert 0 < peak.most < 64e6


def test_a_broken_line_is_reported_only_after_every_tensor_was_gathered() -> None:
    """Other ranks gather each tensor together with this one, and would wait for ever."""
    sender, receiver = ends(2)
    taken = []

    def gathered() -> Iterator[tuple[str, Tensor]]:
        for name in NAMED:
            taken.append(name)
            yield name, torch.ones(1 << 20)

    del receiver  # with it goes its end of the line
    with pytest.raises(RuntimeError, match="Connection"):
        sender.send(1, gathered(), torch.float32)
    assert taken == list(NAMED)
