"""Weights on their way into vLLM's workers: packed into one buffer per GPU, which the worker of
that GPU opens by its handle.

This is the sending side of vLLM 0.31's weight transfer `ipc`, packed, for one process that serves
several GPUs. The buffer is exported once and filled again and again, so that no second copy of the
model exists anywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypedDict

import torch
from torch import Tensor
from torch.multiprocessing.reductions import reduce_tensor

BUFFER_BYTES = 512 * 2**20


@dataclass(frozen=True)
class Gpu:
    """A GPU as this process and as the whole machine know it."""

    device: torch.device
    uuid: str


class Update(TypedDict):
    """Weights that lie packed in a buffer, in this order; handles by the GPU's uuid."""

    names: list[str]
    dtype_names: list[str]
    shapes: list[list[int]]
    tensor_sizes: list[int]
    ipc_handles: Mapping[str, tuple[object, ...]]


@dataclass
class WeightTransfer:
    """Fills one buffer on every GPU, with all weights in one dtype.

    Every update must be read before the next one is asked for, and `close` follows when the workers
    have let go of the buffers.
    """

    gpus: Sequence[Gpu]
    dtype: torch.dtype
    num_bytes: int = BUFFER_BYTES
    _buffers: list[Tensor] = field(default_factory=list)
    _handles: dict[str, tuple[object, ...]] = field(default_factory=dict)

    def updates(self, tensors: Iterable[tuple[str, Tensor]]) -> Iterator[Update]:
        """These weights, as many at a time as fit; each is copied before the next one is asked for."""
        names: list[str] = []
        shapes: list[list[int]] = []
        sizes: list[int] = []
        for name, tensor in tensors:
            assert tensor.is_floating_point(), (
                f"{name} holds {tensor.dtype}, and weights are real numbers"
            )
            size = tensor.numel() * self.dtype.itemsize
            if names and sum(sizes) + size > self.num_bytes:
                yield self._update(names, shapes, sizes)
                names, shapes, sizes = [], [], []
            self._put(tensor, start=sum(sizes), size=size)
            names.append(name)
            shapes.append(list(tensor.shape))
            sizes.append(size)
        if names:
            yield self._update(names, shapes, sizes)

    def close(self) -> None:
        """Give the buffers back."""
        self._buffers, self._handles = [], {}
        if any(gpu.device.type == "cuda" for gpu in self.gpus):
            torch.cuda.ipc_collect()

    def _put(self, tensor: Tensor, *, start: int, size: int) -> None:
        """Write a tensor's bytes into every buffer; one that is larger than the buffers makes them
        grow.
        """
        if not self._buffers or size > self.num_bytes:
            self._reserve(max(size, self.num_bytes))
        flat = tensor.detach().to(self.dtype).contiguous().view(-1).view(torch.uint8)
        for buffer in self._buffers:
            buffer[start : start + size].copy_(flat)

    def _reserve(self, num_bytes: int) -> None:
        """Make and export new buffers."""
        self._buffers, self.num_bytes = [], num_bytes
        self._buffers = [
            torch.empty(num_bytes, dtype=torch.uint8, device=gpu.device) for gpu in self.gpus
        ]
        self._handles = {
            gpu.uuid: reduce_tensor(buffer)[1]
            for gpu, buffer in zip(self.gpus, self._buffers, strict=True)
        }

    def _update(self, names: list[str], shapes: list[list[int]], sizes: list[int]) -> Update:
        """What lies in the buffers, once it does."""
        for gpu in self.gpus:
            if gpu.device.type == "cuda":
                torch.cuda.synchronize(gpu.device)
        dtype = str(self.dtype).removeprefix("torch.")
        return Update(
            names=names,
            dtype_names=[dtype] * len(names),
            shapes=shapes,
            tensor_sizes=sizes,
            ipc_handles=self._handles,
        )
