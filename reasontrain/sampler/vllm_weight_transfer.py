"""Transfer of weights to vLLM's workers, through a buffer that they open in their own processes.

On GPUs this is the sender of vLLM 0.32's packed weight transfer `ipc`, for one process that serves
several GPUs: each has a buffer, which its worker opens by CUDA IPC. On CPUs all workers of an
engine map one buffer in main memory (`vllm_worker.MainMemoryTransfer`). A buffer is exported once
and filled repeatedly, so that no second copy of the model exists at any time.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypedDict

import torch
from torch import Tensor
from torch.multiprocessing.reductions import reduce_tensor

BUFFER_BYTES = 512 * 2**20
"""The size of a buffer, unless one tensor is larger."""
MAIN_MEMORY = "cpu"
"""The name of main memory among devices with a buffer, and of the transfer through it."""


@dataclass(frozen=True)
class BufferDevice:
    """A device that holds a buffer, and the name by which its readers find their handle.

    The name is the UUID of a GPU on its machine, or `MAIN_MEMORY`.
    """

    device: torch.device
    uuid: str


class Update(TypedDict):
    """Weights packed into the buffers in this order; sizes in bytes, handles by device name."""

    names: list[str]
    dtype_names: list[str]
    shapes: list[list[int]]
    tensor_sizes: list[int]
    ipc_handles: Mapping[str, tuple[object, ...]]


@dataclass
class WeightTransfer:
    """Pack weights into one buffer on every device, all in one dtype.

    The workers must have read an update before the next one is requested, because it overwrites
    the buffers. Call `close` when they have released them.
    """

    devices: Sequence[BufferDevice]
    dtype: torch.dtype
    num_bytes: int = BUFFER_BYTES
    _buffers: list[Tensor] = field(default_factory=list)
    _handles: dict[str, tuple[object, ...]] = field(default_factory=dict)
    _files: list[int] = field(default_factory=list)

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
        self._release()
        if any(buffer.device.type == "cuda" for buffer in self.devices):
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
        self._release()  # first: old and new buffers together may not fit
        self.num_bytes = num_bytes
        for target in self.devices:
            if target.device.type == "cpu":
                buffer, handle = self._shared_memory()
            else:
                buffer = torch.empty(num_bytes, dtype=torch.uint8, device=target.device)
                handle = reduce_tensor(buffer)[1]
            self._buffers.append(buffer)
            self._handles[target.uuid] = handle

    def _release(self) -> None:
        """Drop buffers and handles; readers that have mapped one keep it until they drop it."""
        self._buffers = []
        self._handles = {}
        for file in self._files:
            os.close(file)
        self._files = []

    def _shared_memory(self) -> tuple[Tensor, tuple[object, ...]]:
        """A buffer in main memory, and as its handle a path by which other processes map it.

        The file has no name in any folder: the limits of /dev/shm do not apply, and nothing is
        left when this process is killed.
        """
        file = os.memfd_create("weights")
        self._files.append(file)
        os.ftruncate(file, self.num_bytes)
        path = f"/proc/{os.getpid()}/fd/{file}"
        return map_buffer(path, self.num_bytes), (path, self.num_bytes)

    def _update(self, names: list[str], shapes: list[list[int]], sizes: list[int]) -> Update:
        """Describe the content of the buffers, once all copies to them are done."""
        # the workers read in other processes, which CUDA streams of this one do not order
        for target in self.devices:
            if target.device.type == "cuda":
                torch.cuda.synchronize(target.device)
        dtype = str(self.dtype).removeprefix("torch.")
        return Update(
            names=names,
            dtype_names=[dtype] * len(names),
            shapes=shapes,
            tensor_sizes=sizes,
            ipc_handles=self._handles,
        )


def map_buffer(path: str, num_bytes: int) -> Tensor:
    """The buffer at a path, shared with all processes that map it."""
    return torch.from_file(path, shared=True, size=num_bytes, dtype=torch.uint8)
