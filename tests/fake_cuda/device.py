"""A build of torch for CPUs that answers as if it had one CUDA device.

The tensors of the device are `FakeCuda`. For a process of its own: torch's functions are replaced
and not restored.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import torch
import torch.utils._device
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes

from tests.fake_cuda.record import RECORDER
from tests.fake_cuda.tensor import FakeCuda, FakeDevice

TOTAL_BYTES = 80 * 2**30
FREE_BYTES = 70 * 2**30

_tensor = torch.tensor
_as_tensor = torch.as_tensor
_generator = torch.Generator


class Event:
    """A moment in the stream: nothing is asynchronous, so it is the host's."""

    def __init__(self, enable_timing: bool = False) -> None:
        self.moment_s = 0.0

    def record(self) -> None:
        self.moment_s = time.perf_counter()

    def elapsed_time(self, end: Event) -> float:
        return 1000 * (end.moment_s - self.moment_s)

    def synchronize(self) -> None:
        RECORDER.sync("Event.synchronize")


def pretend() -> None:
    """Make this process's torch see the fake device, from now on."""
    for name, replacement in {
        "Event": Event,
        "_lazy_init": lambda: None,
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "synchronize": lambda device=None: RECORDER.sync("cuda.synchronize"),
        "get_device_name": lambda device=None: "fake H100",
        "get_device_capability": lambda device=None: (9, 0),
        "get_device_properties": lambda device=None: SimpleNamespace(
            name="fake H100", total_memory=TOTAL_BYTES, major=9, minor=0, multi_processor_count=132
        ),
        "is_bf16_supported": lambda *args, **options: True,
        "mem_get_info": lambda device=None: (FREE_BYTES, TOTAL_BYTES),
        "memory_allocated": lambda device=None: 0,
        "memory_reserved": lambda device=None: 0,
        "max_memory_allocated": lambda device=None: 0,
        "max_memory_reserved": lambda device=None: 0,
        "reset_peak_memory_stats": lambda device=None: None,
        "empty_cache": lambda: None,
        "device": lambda device: nullcontext(),
        "device_of": lambda tensor: nullcontext(),
        "manual_seed": lambda seed: None,
        "manual_seed_all": lambda seed: None,
        "_is_in_bad_fork": lambda: False,
    }.items():
        setattr(torch.cuda, name, replacement)
    torch.tensor = tensor
    torch.as_tensor = as_tensor
    torch.Generator = Generator
    # Wrapped tensors of inference mode have no version counters, which views of them need.
    torch.inference_mode = torch.no_grad
    nn.Module._apply = apply
    FakeDevice().__enter__()


@contextmanager
def without() -> Iterator[None]:
    """A block in which torch is as it was: new tensors are on the CPU, and nothing is counted."""
    torch.tensor = _tensor
    torch.as_tensor = _as_tensor
    torch.utils._device._device_constructors.cache_clear()
    try:
        with _disable_current_modes():
            yield
    finally:
        torch.tensor = tensor
        torch.as_tensor = as_tensor
        torch.utils._device._device_constructors.cache_clear()


class Generator:
    """Random numbers are the CPU's."""

    def __new__(cls, device: torch.device | str = "cpu") -> torch.Generator:
        return _generator("cpu")


def tensor(data, *, dtype=None, device=None, requires_grad=False, pin_memory=False) -> Tensor:
    """`torch.tensor`, which makes tensors of the device in C++."""
    if isinstance(data, FakeCuda):
        data = data.tolist()
    elif isinstance(data, list) and data and isinstance(data[0], FakeCuda):
        data = [each.tolist() for each in data]
    made = _tensor(data, dtype=dtype)
    return _moved(made, device).requires_grad_(requires_grad)


def as_tensor(data, dtype=None, device=None) -> Tensor:
    """`torch.as_tensor`, for the same reason."""
    if isinstance(data, FakeCuda):
        return data.to(device=device or data.device, dtype=dtype or data.dtype)
    return _moved(_as_tensor(data, dtype=dtype), device)


def _moved(made: Tensor, device: torch.device | str | None) -> Tensor:
    return made if device is None else made.to(device)


def apply(module: nn.Module, change: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    """`nn.Module._apply`: parameters that move to the device are new ones, tied ones stay tied."""
    changed: dict[int, Tensor] = {}
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is None:
                continue
            if id(parameter) not in changed:
                with torch.no_grad():
                    value = change(parameter)
                if isinstance(value, FakeCuda) or isinstance(parameter, FakeCuda):
                    changed[id(parameter)] = nn.Parameter(value, parameter.requires_grad)
                else:
                    parameter.data = value
                    changed[id(parameter)] = parameter
            part._parameters[name] = changed[id(parameter)]
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = change(buffer)
    return module
