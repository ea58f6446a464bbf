"""Weight transfer from learner rank 0 to the samplers over NCCL or gloo, with a checksum.

Tensors are broadcast one by one; the checksum covers all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol, cast

import torch
from torch import Tensor
from torch.distributed import distributed_c10d

from reasontrain.learner.distributed import open_store

Slot = tuple[str, tuple[int, ...]]
"""Name and shape of a tensor to be received."""
CHECK_MODULUS = (1 << 61) - 1
CHECK_WORDS = 1 << 20
"""Words of a tensor that are summed at once, in about 32 MB of temporaries."""
_FROM_RANK_0 = distributed_c10d.BroadcastOptions()
_FROM_RANK_0.rootRank = 0
_FROM_RANK_0.rootTensor = 0


class BroadcastGroup(Protocol):
    """The method of gloo's and NCCL's process groups that is called."""

    def broadcast(
        self, tensors: list[Tensor], options: distributed_c10d.BroadcastOptions
    ) -> distributed_c10d.Work: ...


@dataclass(frozen=True)
class TransferChecksum:
    """Summary of a transfer at one end; equal at both ends if everything arrived."""

    version: int
    num_tensors: int
    checksum: int


class WeightBroadcast:
    """One end of a broadcast group: rank 0 sends, all others receive.

    Its process group is created by the backend's class and not by `init_process_group`: a process
    has one default group, which in a learner rank is the group of the learner.
    """

    def __init__(self, host: str, port: int, rank: int, size: int, timeout_s: float) -> None:
        """Open the store at which the ends rendezvous.

        Args:
            host: Address of rank 0.
            port: Port of rank 0; at rank 0 itself, 0 stands for any free one (see `port`).
            rank: 0 for the sender, from 1 for receivers.
            size: Number of ends.
            timeout_s: Limit of every operation, in seconds.
        """
        timeout = timedelta(seconds=timeout_s)
        self.rank = rank
        # Rank 0 must return at once: its port is sent to the receivers before they can connect.
        self.store = open_store(host, port, first=rank == 0, timeout_s=timeout_s)
        self.size = size
        self.timeout = timeout
        self._group: BroadcastGroup | None = None

    @property
    def port(self) -> int:
        """The port of rank 0."""
        return int(self.store.port)

    def connect(self, device: torch.device) -> None:
        """Join the other ends, and return when all have joined.

        Args:
            device: The device that tensors are sent from and received on, at every end of the same
                type: GPUs are connected by NCCL, CPUs by gloo.
        """
        if self._group is None:
            self._device = device
            if device.type == "cuda":
                options = distributed_c10d.ProcessGroupNCCL.Options()
                options._timeout = self.timeout
                self._group = cast(
                    BroadcastGroup,
                    distributed_c10d.ProcessGroupNCCL(self.store, self.rank, self.size, options),
                )
            else:
                self._group = cast(
                    BroadcastGroup,
                    distributed_c10d.ProcessGroupGloo(
                        self.store, self.rank, self.size, self.timeout
                    ),
                )

    def send(
        self, version: int, named: Iterator[tuple[str, Tensor]], dtype: torch.dtype
    ) -> TransferChecksum:
        """Send every tensor in this dtype.

        The iterator is exhausted even if a broadcast fails: under ZeRO-3 the other ranks take part
        in gathering each tensor and would wait forever.
        """
        checksum = 0
        num_tensors = 0
        failure: RuntimeError | None = None
        for name, tensor in named:
            sent = tensor.detach().to(self._device, dtype).contiguous()
            num_tensors += 1
            checksum = _updated(checksum, name, sent)
            if failure is None:
                try:
                    self._broadcast(sent)
                except RuntimeError as error:
                    failure = error
        if failure is not None:
            raise failure
        return TransferChecksum(version, num_tensors, checksum)

    def receive(
        self, version: int, slots: Sequence[Slot], dtype: torch.dtype, device: torch.device
    ) -> Iterator[tuple[str, Tensor]]:
        """Yield the tensors as they arrive; `checksum` is complete when all have been consumed.

        Args:
            version: The version of the weights.
            slots: Names and shapes, in the order in which rank 0 sends.
            dtype: The dtype in which rank 0 sends.
            device: The device of the tensors that are yielded.
        """
        self.checksum = TransferChecksum(version, 0, 0)
        for name, shape in slots:
            tensor = torch.empty(shape, dtype=dtype, device=self._device)
            self._broadcast(tensor)
            self.checksum = TransferChecksum(
                version,
                self.checksum.num_tensors + 1,
                _updated(self.checksum.checksum, name, tensor),
            )
            yield name, tensor.to(device)

    def _broadcast(self, tensor: Tensor) -> None:
        assert self._group is not None, "connect comes first"
        self._group.broadcast([tensor], _FROM_RANK_0).wait()


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
    # The only synchronisation with the device, once per tensor.
    return (total * 1_000_003 + int(weighted_1) + sum(name.encode())) % CHECK_MODULUS
