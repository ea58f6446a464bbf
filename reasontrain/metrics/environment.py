"""Versions of installed packages and facts about the machine, for the record of a run."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
DRIVER = Path("/proc/driver/nvidia/version")


def versions(names: Sequence[str]) -> dict[str, str]:
    """Versions of the named packages; those that are not installed are left out."""
    installed = {}
    for name in names:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return installed


def environment(versions_of: Sequence[str], facts: Mapping[str, object]) -> dict[str, object]:
    """Versions, the commit of this code, the machine, and `facts`.

    Environment variables are not recorded, because they may hold secrets.
    """
    return {
        "versions": versions(versions_of),
        "python": platform.python_version(),
        "commit": commit(),
        "host": socket.gethostname(),
        "cpus": os.cpu_count() or 0,
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        "driver": _driver(),
        **facts,
    }


def commit(root: Path = ROOT) -> str | None:
    """The commit of a checkout, with "+changes" if files differ from it; None without a checkout.

    An installed package is in no checkout, whatever repository its environment lies in.
    """
    if not (root / ".git").exists():
        return None
    git = ["git", "-C", str(root)]
    try:
        head = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=10
        )
        changes = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no"],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return head.stdout.strip() + ("+changes" if changes.stdout.strip() else "")


def _driver() -> str | None:
    """The version of the NVIDIA driver, in its own words."""
    return DRIVER.read_text(encoding="utf-8").partition("\n")[0] if DRIVER.exists() else None
