"""Memory that a process took at most."""

from __future__ import annotations

import resource
from pathlib import Path

import torch

STATUS = Path("/proc/self/status")


def peak_gb(device: torch.device) -> float:
    """The most memory that this process has taken since its start, in 10^9 bytes.

    On a GPU, what PyTorch reserved there, which includes memory that it keeps for reuse; on a CPU,
    resident memory, which includes the pages of weight files that it maps.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device) / 1e9
    if not STATUS.exists():  # macOS, which counts in bytes
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9
    for line in STATUS.read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e9
    raise ValueError(f"{STATUS} has no VmHWM")
