"""Weights over a line: everything arrives, and both ends know when it did not."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
import torch
from hypothesis import given
from hypothesis.strategies import integers
from torch import Tensor
from torch.distributed import distributed_c10d

from reasontrain.cluster import weight_transfer
from reasontrain.cluster.weight_transfer import (
    CHECK_MODULUS,
    BroadcastGroup,
    TransferAbortedError,
    TransferChecksum,
    WeightBroadcast,
    _updated,
    buckets,
)
from reasontrain.types import LostError
from tests.peak_bytes import PeakBytes

CPU = torch.device("cpu")
NAMED = {
    "a": torch.arange(6.0).reshape(2, 3),
    "b": torch.tensor([1.5, -2.0]),
    "c": torch.zeros(0),
    "d": torch.tensor([3.0]),
}
SLOTS = [(name, tuple(tensor.shape)) for name, tensor in NAMED.items()]


def ends(size: int, *, timeout_s: float = 20.0, remote: int = 0) -> list[WeightBroadcast]:
    """Rank 0 and all others but the last `remote`, on loopback."""
    first = WeightBroadcast("127.0.0.1", 0, 0, size, device=CPU, timeout_s=timeout_s)
    rest = [
        WeightBroadcast("127.0.0.1", first.port, rank, size, device=CPU, timeout_s=timeout_s)
        for rank in range(1, size - remote)
    ]
    return [first, *rest]


def received(channel: WeightBroadcast, version: int, dtype: torch.dtype) -> dict[str, Tensor]:
    return dict(channel.receive(version, SLOTS, dtype, CPU))


def transfer(
    channels: list[WeightBroadcast], version: int, dtype: torch.dtype = torch.float32
) -> tuple[TransferChecksum, list[dict[str, Tensor]]]:
    with ThreadPoolExecutor(len(channels)) as threads:
        sending = threads.submit(channels[0].send, version, iter(NAMED.items()), SLOTS, dtype)
        arrived = threads.map(lambda channel: received(channel, version, dtype), channels[1:])
        return sending.result(), list(arrived)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bucket_bytes", [8, 24, 2**29])
def test_every_tensor_arrives_at_every_end_and_the_receipts_are_equal(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, bucket_bytes: int
) -> None:
    monkeypatch.setattr(weight_transfer, "BUCKET_BYTES", bucket_bytes)
    channels = ends(3)
    for version in (4, 5):  # a line is used again
        sent, got = transfer(channels, version, dtype)
        assert (sent.version, sent.num_tensors) == (version, 4)
        for channel, tensors in zip(channels[1:], got, strict=True):
            assert channel.checksum == sent
            assert tensors.keys() == NAMED.keys()
            assert all(torch.equal(tensors[name], NAMED[name].to(dtype)) for name in NAMED)


def test_buckets_hold_whole_tensors_and_a_large_one_has_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By hand, at 24 bytes and 4 for a number: 6 | 2 0 1 | 7 | 1."""
    monkeypatch.setattr(weight_transfer, "BUCKET_BYTES", 24)
    slots = [*SLOTS, ("e", (7, 1)), ("f", ())]
    assert ["".join(name for name, _ in bucket) for bucket in buckets(slots, torch.float32)] == [
        "a",
        "bcd",
        "e",
        "f",
    ]
    assert list(buckets(slots, torch.float16)) == [[*SLOTS], slots[4:]]  # 18 bytes, and 16


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


# ---- ends that die


class NcclWork:
    """A broadcast whose `wait` returns at once, and which never completes without its peer: except
    at the root, whose part may be over before anything has arrived.
    """

    def __init__(self, work: distributed_c10d.Work, *, is_root: bool) -> None:
        self.work = work
        self.is_root = is_root

    def wait(self) -> bool:
        return True

    def is_completed(self) -> bool:
        if self.is_root or not self.work.is_completed():
            return self.is_root
        with suppress(RuntimeError):  # gloo's, which NCCL does not raise
            self.work.wait()
            return True
        return False


class NcclGroup:
    """Gloo with what NCCL does otherwise."""

    def __init__(self, group: BroadcastGroup, rank: int) -> None:
        self.group = group
        self.is_root = rank == 0

    def broadcast(
        self, tensors: list[Tensor], options: distributed_c10d.BroadcastOptions
    ) -> NcclWork:
        return NcclWork(self.group.broadcast(tensors, options), is_root=self.is_root)

    def abort(self) -> None:
        self.group.abort()


@pytest.fixture(params=["gloo", "nccl"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Groups of this process that behave as this backend's; buckets of one tensor."""
    monkeypatch.setattr(weight_transfer, "BUCKET_BYTES", 1)
    if request.param == "nccl":
        make = distributed_c10d.ProcessGroupGloo
        monkeypatch.setattr(
            distributed_c10d,
            "ProcessGroupGloo",
            lambda store, rank, *options: NcclGroup(make(store, rank, *options), rank),
        )
    return request.param


KILLED = """
import os, sys, torch
from reasontrain.cluster import weight_transfer

port, rank, size = map(int, sys.argv[1:])
weight_transfer.BUCKET_BYTES = 1
channel = weight_transfer.WeightBroadcast(
    "127.0.0.1", port, rank, size, device=torch.device("cpu"), timeout_s=20.0
)
for name, tensor in channel.receive(1, {slots}, torch.float32, torch.device("cpu")):
    os.kill(os.getpid(), 9)
"""


def gathered(taken: list[str]) -> Iterator[tuple[str, Tensor]]:
    """The tensors; other ranks gather each together with this one, and would wait for ever."""
    for name, tensor in NAMED.items():
        taken.append(name)
        yield name, tensor
    taken.append("end")


def test_a_receiver_killed_within_a_transfer_is_named_and_the_sender_goes_on(backend: str) -> None:
    """Its second bucket is never confirmed. The other receiver does not wait for ever either, and
    the next transfer, over a new group, is in order.
    """
    sender, survivor = ends(3, timeout_s=1.0, remote=1)
    killed = subprocess.Popen(
        [sys.executable, "-c", KILLED.format(slots=SLOTS), str(sender.port), "2", "3"]
    )
    taken: list[str] = []
    with ThreadPoolExecutor(1) as threads:
        receiving = threads.submit(received, survivor, 1, torch.float32)
        with pytest.raises(LostError, match="sampler 1 ") as error:
            sender.send(1, gathered(taken), SLOTS, torch.float32)
        with pytest.raises((TransferAbortedError, RuntimeError)):
            receiving.result()
    assert killed.wait() == -signal.SIGKILL
    assert (error.value.role, error.value.rank) == ("sampler", 1)
    assert ("did not confirm" if backend == "nccl" else "broke off") in str(error.value)
    assert taken == [*NAMED, "end"]
    with pytest.raises(TransferAbortedError):
        sender.send(2, gathered(taken), SLOTS, torch.float32)  # that group is of no use
    channels = ends(3)
    sent, _ = transfer(channels, 2)
    assert [channel.checksum for channel in channels[1:]] == [sent, sent]


def test_a_receiver_that_is_stuck_is_named(backend: str) -> None:
    """As one whose engine hangs while it loads: it lives, and confirms nothing more."""
    channels = ends(3, timeout_s=0.5)
    stuck = channels[1].receive(1, SLOTS, torch.float32, CPU)
    with ThreadPoolExecutor(2) as threads:
        threads.submit(next, stuck)
        other = threads.submit(received, channels[2], 1, torch.float32)
        with pytest.raises(LostError, match="sampler 0 did not confirm 0 MB of weights within"):
            channels[0].send(1, iter(NAMED.items()), SLOTS, torch.float32)
        with pytest.raises((TransferAbortedError, RuntimeError)):
            other.result()


def test_a_receiver_that_still_samples_is_waited_for() -> None:
    """The deadline is of the transfer: it starts when every receiver is ready."""
    sender, receiver = ends(2, timeout_s=2.0)
    with ThreadPoolExecutor(1) as threads:
        sending = threads.submit(sender.send, 1, iter(NAMED.items()), SLOTS, torch.float32)
        time.sleep(2.5)
        assert not sending.done()
        assert received(receiver, 1, torch.float32).keys() == NAMED.keys()
        assert sending.result() == receiver.checksum


def test_a_transfer_is_cancelled_from_another_thread() -> None:
    sender, _ = ends(2)
    taken: list[str] = []
    with ThreadPoolExecutor(1) as threads:
        sending = threads.submit(sender.send, 1, gathered(taken), SLOTS, torch.float32)
        sender.cancel()
        with pytest.raises(TransferAbortedError):
            sending.result()
    assert taken == [*NAMED, "end"]
