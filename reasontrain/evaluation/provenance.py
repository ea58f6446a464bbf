"""Provenance of a measurement: the commit, uncommitted changes, and the machine."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """The code and the machine of a measurement.

    `changed` names files that differ from the commit or are not in it.
    """

    commit: str
    changed: tuple[str, ...]
    hardware: str


def current_provenance(folder: Path, exclude: tuple[Path, ...] = ()) -> Provenance:
    """The provenance of a measurement with this code on this machine.

    Changes in the package and in `folder` (the inputs) count, except the paths in `exclude`.
    """
    package = Path(__file__).resolve().parents[1]
    commit = _git(package, "rev-parse", "HEAD").strip() or "unknown"
    changed = {
        # a line is two letters of status, a blank and the path
        line[3:]
        for root in (package, folder.resolve())
        for line in _changes(root, exclude)
    }
    return Provenance(commit=commit, changed=tuple(sorted(changed)), hardware=hardware())


def hardware() -> str:
    """The processor, its number of cores, and the GPUs, as text."""
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return ", ".join([f"{_processor()}, {os.cpu_count()} cores", *gpus])


def _processor() -> str:
    """The processor's model name; `platform.processor` is empty on most Linux systems."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _changes(folder: Path, exclude: tuple[Path, ...]) -> list[str]:
    """The lines of `git status` below a folder."""
    excluded = [
        f":(exclude){path.resolve()}" for path in exclude if path.resolve().is_relative_to(folder)
    ]
    return _git(folder, "status", "--porcelain", "--", str(folder), *excluded).splitlines()


def _git(folder: Path, *arguments: str) -> str:
    """The output of git, or an empty text if there is no git or no repository."""
    try:
        process = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        return ""
    return process.stdout if process.returncode == 0 else ""
