"""Memory of this process and of the machine, as the kernel counts it."""

from __future__ import annotations

import resource
from pathlib import Path

import torch

MACHINE = Path("/proc/meminfo")
PROCESS = Path("/proc/self/status")


def sizes(path: Path) -> dict[str, int]:
    """The fields of a file of /proc that are sizes, such as MemAvailable or VmHWM, in bytes."""
    fields = (line.split() for line in path.read_text(encoding="utf-8").splitlines())
    return {
        words[0].removesuffix(":"): int(words[1]) * 1024 for words in fields if words[2:] == ["kB"]
    }


def peak_gb(device: torch.device) -> float:
    """The most memory that this process has taken since its start, in 10^9 bytes.

    On a GPU, what PyTorch reserved there, which includes memory that it keeps for reuse; on a CPU,
    resident memory, which includes the pages of weight files that it maps.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device) / 1e9
    if not PROCESS.exists():  # macOS, which counts in bytes
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9
    return sizes(PROCESS)["VmHWM"] / 1e9
