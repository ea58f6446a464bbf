"""The machine: devices, memory, disk, threads, and Slurm's commands."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from reasontrain.doctor.finding import Finding
from reasontrain.metrics.memory import MACHINE, sizes

GIB = 2**30
LEAST_DISK = 10 * GIB
"""Free space below which the checkpoints of a small model do not fit."""
LEAST_SHARED = GIB
"""Size of /dev/shm below which Ray's object store and vLLM's queues move to slower files."""
LEAST_CAPABILITY = (8, 0)
"""Ampere, the first with bfloat16 and the kernels in use."""


def devices(device: torch.device) -> Iterator[Finding]:
    """Every GPU, or the absence of one."""
    if not torch.cuda.is_available():
        built = torch.version.cuda
        detail = f"none; torch {torch.__version__} is built for {built or 'CPUs'}"
        if Path("/proc/driver/nvidia/version").exists():
            mend = "there is an NVIDIA driver: install a torch for CUDA, or update the driver"
            yield Finding(name="GPUs", status="broken", detail=detail, mend=mend)
        else:
            yield Finding(name="GPUs", status="absent", detail=detail)
        return
    for index in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(index)
        free, total = torch.cuda.mem_get_info(index)
        new = (about.major, about.minor) >= LEAST_CAPABILITY
        is_in_use = total - free > GIB
        yield Finding(
            name=f"GPU {index}",
            status="ok" if new and not is_in_use else ("slow" if new else "broken"),
            detail=f"{about.name}, {free / GIB:.1f} of {total / GIB:.1f} GiB free, sm_{about.major}"
            f"{about.minor}, CUDA {torch.version.cuda}",
            mend="other processes use it (nvidia-smi)"
            if is_in_use
            else ("" if new else "bfloat16 needs sm_80 or newer"),
        )


def memory(device: torch.device) -> Iterator[Finding]:
    """Main memory, shared memory and the disk of the working directory."""
    main = sizes(MACHINE)
    total, free = main["MemTotal"], main["MemAvailable"]
    yield Finding(
        name="main memory", status="ok", detail=f"{free / GIB:.1f} of {total / GIB:.1f} GiB free"
    )
    shared = shutil.disk_usage("/dev/shm")
    yield Finding(
        name="/dev/shm",
        status="ok" if shared.free >= LEAST_SHARED else "slow",
        detail=f"{shared.free / GIB:.1f} GiB free",
        mend="" if shared.free >= LEAST_SHARED else "in a container: --ipc host or --shm-size 8g",
    )
    places = {Path.cwd(), Path(tempfile.gettempdir())}
    for place in sorted(places):
        space = shutil.disk_usage(place)
        yield Finding(
            name=f"disk {place}"[-21:],
            status="ok" if space.free >= LEAST_DISK else "slow",
            detail=f"{space.free / GIB:.1f} GiB free",
            mend="" if space.free >= LEAST_DISK else "a checkpoint of 0.6B takes 7 GB",
        )


def threads(device: torch.device) -> Iterator[Finding]:
    """Threads beside cores: waiting ones must sleep."""
    cores = len(os.sched_getaffinity(0))
    policy = os.environ.get("OMP_WAIT_POLICY", "")
    detail = f"{torch.get_num_threads()} for {cores} cores, OMP_WAIT_POLICY={policy}"
    if policy.upper() != "PASSIVE":
        yield Finding(
            name="threads",
            status="slow",
            detail=detail,
            mend="OMP_WAIT_POLICY=PASSIVE, or tiny models run up to 50 times slower",
        )
    elif torch.get_num_threads() > cores:
        yield Finding(name="threads", status="slow", detail=detail, mend=f"OMP_NUM_THREADS={cores}")
    else:
        yield Finding(name="threads", status="ok", detail=detail)


def slurm(device: torch.device) -> Iterator[Finding]:
    """Slurm's version, and whether its controller answers."""
    if not shutil.which("sbatch"):
        yield Finding(name="Slurm", status="absent", detail="sbatch is not on PATH")
        return
    version = _output("sbatch", "--version") or "sbatch gives no version"
    nodes = _output("sinfo", "--noheader", "--format", "%D nodes %T")
    if nodes is None:
        yield Finding(
            name="Slurm", status="absent", detail=f"{version}; no controller answers sinfo"
        )
    else:
        yield Finding(name="Slurm", status="ok", detail=f"{version}; {' '.join(nodes.split())}")


def _output(*command: str) -> str | None:
    """The output of a command; None if it fails or takes more than ten seconds."""
    try:
        ended = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return ended.stdout.strip()
