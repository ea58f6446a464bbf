"""Weights from learner rank 0 to samplers: straight from process to process, tensor by tensor, with
a checksum over all of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol, cast

import torch
from torch import Tensor
from torch._C._distributed_c10d import TCPStore
from torch.distributed import distributed_c10d

Slot = tuple[str, tuple[int, ...]]
"""Name and shape of a tensor on its way."""
CHECK_MODULUS = (1 << 61) - 1
_FROM_RANK_0 = distributed_c10d.BroadcastOptions()
_FROM_RANK_0.rootRank, _FROM_RANK_0.rootTensor = 0, 0


class BroadcastGroup(Protocol):
    """What gloo and nccl have in common."""

    def broadcast(
        self, tensors: list[Tensor], options: distributed_c10d.BroadcastOptions
    ) -> distributed_c10d.Work: ...


@dataclass(frozen=True)
class TransferChecksum:
    """What one end of a transfer saw: equal on both ends where all arrived."""

    version: int
    num_tensors: int
    checksum: int


class WeightBroadcast:
    """One end of a one-way line: rank 0 sends, all others receive.

    It lives outside of the learner's own process group.
    """

    def __init__(self, host: str, port: int, rank: int, size: int, timeout_s: float) -> None:
        """Rank 0 listens at `port` (0: any that is free, see `port`); returns when all ends are
        there, but for rank 0.
        """
        timeout = timedelta(seconds=timeout_s)
        self.rank = rank
        self.store = TCPStore(
            host, port, is_master=rank == 0, wait_for_workers=False, timeout=timeout
        )
        self.size, self.timeout = size, timeout
        self._line: BroadcastGroup | None = None

    @property
    def port(self) -> int:
        """Where rank 0 listens."""
        return int(self.store.port)

    def connect(self, device: torch.device) -> None:
        """Meet the other ends."""
        if self._line is None:
            ends = self.store, self.rank, self.size
            if device.type == "cuda":
                options = distributed_c10d.ProcessGroupNCCL.Options()
                options._timeout = self.timeout
                self._line = cast(BroadcastGroup, distributed_c10d.ProcessGroupNCCL(*ends, options))
            else:
                self._line = cast(
                    BroadcastGroup, distributed_c10d.ProcessGroupGloo(*ends, self.timeout)
                )

    def send(
        self, version: int, named: Iterator[tuple[str, Tensor]], dtype: torch.dtype
    ) -> TransferChecksum:
        """Send every tensor in this dtype.

        The iterator is used up even where the line breaks: other ranks gather with it.
        """
        total, number, failure = 0, 0, None
        for name, tensor in named:
            sent = tensor.detach().to(dtype).contiguous()
            number += 1
            total = _mixed(total, name, sent)
            if failure is None:
                try:
                    self._broadcast(sent)
                except RuntimeError as error:
                    failure = error
        if failure is not None:
            raise failure
        return TransferChecksum(version, number, total)

    def receive(
        self, version: int, slots: Sequence[Slot], dtype: torch.dtype, device: torch.device
    ) -> Iterator[tuple[str, Tensor]]:
        """The tensors as they come; `receipt` is complete when all have been taken."""
        self.receipt = TransferChecksum(version, 0, 0)
        for name, shape in slots:
            got = torch.empty(shape, dtype=dtype, device=device)
            self._broadcast(got)
            self.receipt = TransferChecksum(
                version, self.receipt.num_tensors + 1, _mixed(self.receipt.checksum, name, got)
            )
            yield name, got

    def _broadcast(self, tensor: Tensor) -> None:
        assert self._line is not None, "connect comes first"
        self._line.broadcast([tensor], _FROM_RANK_0).wait()


def _mixed(total: int, name: str, tensor: Tensor) -> int:
    """A checksum that a lost, changed or swapped tensor moves: a polynomial over the tensors' own
    sums of bits.
    """
    words = tensor.reshape(-1).view(torch.int16 if tensor.element_size() == 2 else torch.int32)
    weighted = (words.long() * (torch.arange(len(words), device=words.device) % 65521 + 1)).sum()
    return (total * 1_000_003 + int(weighted) + sum(name.encode())) % CHECK_MODULUS
