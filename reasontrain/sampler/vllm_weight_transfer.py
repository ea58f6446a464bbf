"""Transfer of weights to vLLM's workers, through one buffer per GPU that its worker opens by IPC.

This is the sender of vLLM 0.31's packed weight transfer `ipc`, for one process that serves several
GPUs. The buffer is exported once and filled repeatedly, so that no second copy of the model exists
at any time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypedDict

import torch
from torch import Tensor
from torch.multiprocessing.reductions import reduce_tensor

BUFFER_BYTES = 512 * 2**20
"""The size of a buffer, unless one tensor is larger."""


@dataclass(frozen=True)
class Gpu:
    """A GPU by its device in this process and its UUID on the machine."""

    device: torch.device
    uuid: str


class Update(TypedDict):
    """Weights packed into the buffers in this order; sizes in bytes, handles by GPU UUID."""

    names: list[str]
    dtype_names: list[str]
    shapes: list[list[int]]
    tensor_sizes: list[int]
    ipc_handles: Mapping[str, tuple[object, ...]]


@dataclass
class WeightTransfer:
    """Pack weights into one buffer on every GPU, all in one dtype.

    The workers must have read an update before the next one is requested, because it overwrites
    the buffers. Call `close` when they have released them.
    """

    gpus: Sequence[Gpu]
    dtype: torch.dtype
    num_bytes: int = BUFFER_BYTES
    _buffers: list[Tensor] = field(default_factory=list)
    _handles: dict[str, tuple[object, ...]] = field(default_factory=dict)

    def updates(self, tensors: Iterable[tuple[str, Tensor]]) -> Iterator[Update]:
        """Yield updates of as many weights as fit; copy each tensor before the next is produced."""
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
                names = []
                shapes = []
                sizes = []
            self._copy(tensor, start=sum(sizes), size=size)
            names.append(name)
            shapes.append(list(tensor.shape))
            sizes.append(size)
        if names:
            yield self._update(names, shapes, sizes)

    def close(self) -> None:
        """Free the buffers."""
        self._buffers = []
        self._handles = {}
        if any(gpu.device.type == "cuda" for gpu in self.gpus):
            # without it, PyTorch keeps exported memory until some later allocation
            torch.cuda.ipc_collect()

    def _copy(self, tensor: Tensor, *, start: int, size: int) -> None:
        """Copy a tensor's bytes into every buffer; buffers grow for a tensor that is larger."""
        if not self._buffers or size > self.num_bytes:
            self._reserve(max(size, self.num_bytes))
        flat = tensor.detach().to(self.dtype).contiguous().view(-1).view(torch.uint8)
        for buffer in self._buffers:
            buffer[start : start + size].copy_(flat)

    def _reserve(self, num_bytes: int) -> None:
        """Allocate and export new buffers."""
        # drops the old buffers first: old and new together may not fit
        self._buffers = []
        self.num_bytes = num_bytes
        self._buffers = [
            torch.empty(num_bytes, dtype=torch.uint8, device=gpu.device) for gpu in self.gpus
        ]
        self._handles = {
            gpu.uuid: reduce_tensor(buffer)[1]
            for gpu, buffer in zip(self.gpus, self._buffers, strict=True)
        }

    def _update(self, names: list[str], shapes: list[list[int]], sizes: list[int]) -> Update:
        """Describe the content of the buffers, once all copies to them are done."""
        # the workers read in other processes, which CUDA streams of this one do not order
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
