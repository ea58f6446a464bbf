"""Weight transfer from learner rank 0 to the samplers over NCCL or gloo, with a checksum.

Weights are packed into flat buckets and broadcast one bucket after the other. Every receiver
confirms a bucket through the store at which the ends have met, from host to host: on GPUs the
process groups only order streams, so that a sender learns of a dead receiver in no other way. Calls
of a process group that may block run in threads of their own, and a deadline of the sender ends the
transfer, never a process.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol, cast, runtime_checkable

import torch
from torch import Tensor
from torch.distributed import distributed_c10d

from reasontrain.learner.distributed import open_store
from reasontrain.types import LostError, RunError

Slot = tuple[str, tuple[int, ...]]
"""Name and shape of a tensor to be received."""
BUCKET_BYTES = 512 * 2**20
"""The most bytes of a bucket, unless one tensor is larger."""
CHECK_MODULUS = (1 << 61) - 1
CHECK_WORDS = 1 << 20
"""Words of a tensor that are summed at once, in about 32 MB of temporaries."""
READY = "ready"
"""Key of a receiver: the transfers that it has taken part in, this one included."""
CONFIRMED = "confirmed"
"""Key of a receiver: the buckets that it has received."""
STARTED = "started"
"""Key of the sender: the transfers that it has begun."""
GIVEN_UP = "given up"
"""Key of the sender, which exists once it has given up."""
NCCL_TIMEOUT = timedelta(days=1)
"""Limit of NCCL's operations, which must not act before the sender's deadline: it ends processes.
"""
SHORTEST_PAUSE_S = 2e-4
LONGEST_PAUSE_S = 1e-2
_FROM_RANK_0 = distributed_c10d.BroadcastOptions()
_FROM_RANK_0.rootRank = 0
_FROM_RANK_0.rootTensor = 0


class TransferAbortedError(RunError):
    """A transfer was given up at another end."""


@runtime_checkable
class BroadcastGroup(Protocol):
    """The methods of gloo's and NCCL's process groups that are called."""

    def broadcast(
        self, tensors: list[Tensor], options: distributed_c10d.BroadcastOptions
    ) -> distributed_c10d.Work:
        """Start a broadcast; NCCL's first one returns when all ends have joined."""

    def abort(self) -> None:
        """End operations under way, which nothing else does on GPUs."""


@dataclass(frozen=True)
class TransferChecksum:
    """Summary of a transfer at one end; equal at both ends if everything arrived."""

    version: int
    num_tensors: int
    checksum: int

    def updated(self, name: str, tensor: Tensor) -> TransferChecksum:
        """The checksum with one more tensor."""
        checksum = _updated(self.checksum, name, tensor)
        return TransferChecksum(self.version, self.num_tensors + 1, checksum)


class WeightBroadcast:
    """One end of a broadcast group: rank 0 sends, all others receive.

    Its process group is created by the backend's class and not by `init_process_group`: a process
    has one default group, which in a learner rank is the group of the learner. After a failure the
    group is of no use, and a new one has to be opened.
    """

    def __init__(
        self,
        host: str,
        port: int,
        rank: int,
        size: int,
        *,
        device: torch.device,
        timeout_s: float,
    ) -> None:
        """Open the store at which the ends rendezvous.

        Args:
            host: Address of rank 0.
            port: Port of rank 0; at rank 0 itself, 0 stands for any free one (see `port`).
            rank: 0 for the sender, from 1 for receivers.
            size: Number of ends.
            device: The device that buckets lie on, at every end of the same type: GPUs are
                connected by NCCL, CPUs by gloo.
            timeout_s: The longest time until every receiver has confirmed a bucket, in seconds.
        """
        self.rank = rank
        self.size = size
        self.device = device
        self.timeout_s = timeout_s
        # Rank 0 must return at once: its port is sent to the receivers before they can connect.
        self.store = open_store(host, port, first=rank == 0, timeout_s=timeout_s)
        if rank == 0:
            self.store.set(STARTED, "0")
            for kind in (READY, CONFIRMED):
                for receiver in range(1, size):
                    self.store.set(_key(kind, receiver), "0")
        self._cancelled = threading.Event()
        self._group: BroadcastGroup | None = None
        self._num_transfers = 0
        self._num_buckets = 0

    @property
    def port(self) -> int:
        """The port of rank 0."""
        return int(self.store.port)

    def cancel(self) -> None:
        """End the transfer under way, from any thread; it raises TransferAbortedError."""
        self._cancelled.set()

    def send(
        self,
        version: int,
        named: Iterator[tuple[str, Tensor]],
        slots: Sequence[Slot],
        dtype: torch.dtype,
    ) -> TransferChecksum:
        """Send every tensor in this dtype, once every receiver is ready.

        The iterator is exhausted even if the transfer fails: under ZeRO-3 the other ranks take part
        in gathering each tensor and would wait forever.

        Args:
            version: The version of the weights.
            named: The tensors.
            slots: Their names and shapes, in this order.
            dtype: The dtype in which they are sent.

        Raises:
            LostError: A sampler did not confirm a bucket in time, or its connection broke.
            TransferAbortedError: `cancel` was called.
        """
        checksum = TransferChecksum(version, 0, 0)
        failure: RunError | None = None
        try:
            self._start()
        except RunError as error:
            failure = error
        for bucket in buckets(slots, dtype):
            flat_N = None if failure else _empty(bucket, dtype, self.device)
            start = 0
            for slot in bucket:
                name, tensor = next(named)
                assert (name, tuple(tensor.shape)) == slot, f"{name} is sent in the place of {slot}"
                if flat_N is None:
                    continue
                part_N = flat_N[start : start + tensor.numel()]
                part_N.copy_(tensor.detach().reshape(-1))
                start += tensor.numel()
                checksum = checksum.updated(name, part_N)
            if flat_N is not None:
                try:
                    self._deliver(flat_N)
                except RunError as error:
                    failure = error
        extra = next(named, None)  # to the iterator's own end, which gathers and frees as well
        assert extra is None, f"{extra} was not announced"
        if failure is not None:
            self._give_up()
            raise failure
        return checksum

    def receive(
        self, version: int, slots: Sequence[Slot], dtype: torch.dtype, device: torch.device
    ) -> Iterator[tuple[str, Tensor]]:
        """Yield the tensors as they arrive; `checksum` is complete when all have been consumed.

        Args:
            version: The version of the weights.
            slots: Names and shapes, in the order in which rank 0 sends.
            dtype: The dtype in which rank 0 sends.
            device: The device of the tensors that are yielded.

        Raises:
            TransferAbortedError: The sender has given up.
            RuntimeError: The connection to the sender broke.
        """
        self.checksum = TransferChecksum(version, 0, 0)
        self._num_transfers += 1
        self.store.set(_key(READY, self.rank), str(self._num_transfers))
        self._wait_until(lambda: int(self.store.get(STARTED)) >= self._num_transfers)
        for bucket in buckets(slots, dtype):
            flat_N = _empty(bucket, dtype, self.device)
            broadcast = _Broadcast(self, flat_N)
            try:
                self._wait_until(broadcast.is_done)
                broadcast.finish()
            except BaseException:
                self._give_up()
                raise
            start = 0
            tensors = []
            for name, shape in bucket:
                part_N = flat_N[start : start + _numel(shape)]
                start += len(part_N)
                self.checksum = self.checksum.updated(name, part_N)
                tensors.append((name, part_N.view(shape)))
            self._num_buckets += 1
            self.store.set(_key(CONFIRMED, self.rank), str(self._num_buckets))
            yield from ((name, tensor.to(device)) for name, tensor in tensors)

    def connected(self) -> BroadcastGroup:
        """The process group; it returns when all ends have joined."""
        if self._group is None:
            # Both classes take the store, the rank and the size, and know their timeout.
            if self.device.type == "cuda":
                options = distributed_c10d.ProcessGroupNCCL.Options()
                options._timeout = NCCL_TIMEOUT
                group: object = distributed_c10d.ProcessGroupNCCL(
                    self.store, self.rank, self.size, options
                )
            else:
                group = distributed_c10d.ProcessGroupGloo(
                    self.store, self.rank, self.size, timedelta(seconds=2 * self.timeout_s)
                )
            self._group = cast(BroadcastGroup, group)
        return self._group

    def _start(self) -> None:
        """Wait until every receiver is ready: one that still samples is no failure of transfer."""
        self._num_transfers += 1
        self._wait_until(lambda: not self._missing(READY, self._num_transfers))
        self.store.set(STARTED, str(self._num_transfers))

    def _deliver(self, flat_N: Tensor) -> None:
        """Broadcast a bucket; return when every receiver has confirmed it."""
        self._num_buckets += 1
        broadcast = _Broadcast(self, flat_N)

        def is_done() -> bool:
            return broadcast.is_done() and (
                broadcast.error is not None or not self._missing(CONFIRMED, self._num_buckets)
            )

        if not self._wait_until(is_done, self.timeout_s):
            raise self._lost(
                f"did not confirm {flat_N.nbytes / 1e6:,.0f} MB of weights within "
                f"cluster.transfer_s = {self.timeout_s:g} s"
            )
        try:
            broadcast.finish()
        except RuntimeError as error:
            raise self._lost(f"broke off the transfer of weights: {error}") from error

    def _missing(self, kind: str, number: int) -> list[int]:
        """The receivers whose key has not reached this number."""
        receivers = range(1, self.size)
        values = self.store.multi_get([_key(kind, receiver) for receiver in receivers])
        return [r for r, value in zip(receivers, values, strict=True) if int(value) < number]

    def _lost(self, message: str) -> LostError:
        """The error that names the first sampler without a confirmation."""
        missing = self._missing(CONFIRMED, self._num_buckets) or [1]
        return LostError("sampler", missing[0] - 1, f"sampler {missing[0] - 1} {message}")

    def _wait_until(self, is_done: Callable[[], bool], timeout_s: float | None = None) -> bool:
        """Poll until `is_done`; False if it is not after `timeout_s`."""
        start = time.monotonic()
        while not is_done():
            passed_s = time.monotonic() - start
            if self._cancelled.is_set() or (self.rank and self.store.check([GIVEN_UP])):
                raise TransferAbortedError("the transfer of weights was given up at another end")
            if timeout_s is not None and passed_s > timeout_s:
                return False
            time.sleep(min(max(passed_s / 10, SHORTEST_PAUSE_S), LONGEST_PAUSE_S))
        return True

    def _give_up(self) -> None:
        """Abort the group, here and at all receivers."""
        self._cancelled.set()
        if self.rank == 0:
            self.store.set(GIVEN_UP, "1")
        group, self._group = self._group, None
        if group is not None:
            threading.Thread(target=_abort, args=[group], daemon=True).start()


class _Broadcast:
    """A broadcast of one bucket, whose calls that may block run in a thread."""

    def __init__(self, channel: WeightBroadcast, flat_N: Tensor) -> None:
        self.error: Exception | None = None
        self._work: distributed_c10d.Work | None = None
        self._channel = channel
        self._flat_N = flat_N
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            # This reference outlives the broadcast: gloo's destructor waits for one under way,
            # with Python's lock.
            group = self._channel.connected()
            work = group.broadcast([self._flat_N], _FROM_RANK_0)
            if self._flat_N.device.type == "cpu":
                work.wait()  # NCCL's only orders a stream, and the next bucket would queue there
            self._work = work
        except Exception as error:  # what it raises depends on the backend
            self.error = error

    def is_done(self) -> bool:
        """True if the bucket has been sent or received here, or the attempt has failed."""
        return self.error is not None or (self._work is not None and self._work.is_completed())

    def finish(self) -> None:
        """Order the stream of this thread behind a broadcast that is done; raise if it failed."""
        if self.error is not None:
            raise RuntimeError(f"the connection broke: {self.error}") from self.error
        assert self._work is not None, "is_done comes first"
        self._work.wait()


def buckets(slots: Sequence[Slot], dtype: torch.dtype) -> Iterator[list[Slot]]:
    """The tensors of each bucket, in order; both ends compute them."""
    bucket: list[Slot] = []
    num_bytes = 0
    for name, shape in slots:
        size = _numel(shape) * dtype.itemsize
        if bucket and num_bytes + size > BUCKET_BYTES:
            yield bucket
            bucket = []
            num_bytes = 0
        bucket.append((name, shape))
        num_bytes += size
    if bucket:
        yield bucket


def _empty(bucket: Sequence[Slot], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Memory for a bucket."""
    return torch.empty(sum(_numel(shape) for _, shape in bucket), dtype=dtype, device=device)


def _numel(shape: Sequence[int]) -> int:
    return torch.Size(shape).numel()


def _key(kind: str, receiver: int) -> str:
    return f"{kind}/{receiver}"


def _abort(group: BroadcastGroup) -> None:
    with suppress(Exception):  # nobody is left to hear of it
        group.abort()


def _updated(total: int, name: str, tensor: Tensor) -> int:
    """Update the checksum with one more tensor.

    A polynomial over position-weighted sums of the tensors' bits, so that a lost, changed or
    swapped tensor changes it.
    """
    words = tensor.reshape(-1).view(torch.int16 if tensor.element_size() == 2 else torch.int32)
    weighted_1 = torch.zeros(1, dtype=torch.long, device=words.device)
    # Three int64 temporaries per word: of a whole embedding they would need 12 times its bytes.
    for start in range(0, len(words), CHECK_WORDS):
        part = words[start : start + CHECK_WORDS].long()
        factor = torch.arange(start, start + len(part), device=words.device).remainder_(65521)
        weighted_1 += part.mul_(factor.add_(1)).sum()
    # Synchronises with the device, once per tensor; no broadcast is under way then.
    return (total * 1_000_003 + int(weighted_1) + sum(name.encode())) % CHECK_MODULUS
