"""Where a figure comes from: the commit, what was changed since, and the machine."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """The code and the machine of a measurement; `changed` names files that differ from the commit
    (or are not in it).
    """

    commit: str
    changed: tuple[str, ...]
    hardware: str


def origin(watched: Path, apart: tuple[Path, ...] = ()) -> Provenance:
    """This code on this machine.

    Changes are looked for in the package and in the folder `watched`, `apart` from some of it.
    """
    package = Path(__file__).resolve().parents[1]
    commit = _git(package, "rev-parse", "HEAD").strip() or "unknown"
    changed = {
        line[3:] for folder in (package, watched.resolve()) for line in _changes(folder, apart)
    }
    return Provenance(commit=commit, changed=tuple(sorted(changed)), hardware=hardware())


def hardware() -> str:
    """Processor, how many cores, and the GPUs, in words."""
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return ", ".join([f"{_processor()}, {os.cpu_count()} cores", *gpus])


def _processor() -> str:
    """What the processor calls itself, on Linux; elsewhere what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _changes(folder: Path, apart: tuple[Path, ...]) -> list[str]:
    """Lines of `git status` below a folder."""
    without = [
        f":(exclude){path.resolve()}" for path in apart if path.resolve().is_relative_to(folder)
    ]
    return _git(folder, "status", "--porcelain", "--", str(folder), *without).splitlines()


def _git(folder: Path, *arguments: str) -> str:
    """What git says, or nothing where there is no git or no repository."""
    try:
        asked = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return ""
    return asked.stdout if asked.returncode == 0 else ""
