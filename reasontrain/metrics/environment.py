"""Versions of installed packages and facts about the machine, for the record of a run."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib import metadata


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
    """Versions, the number of CPUs, and `facts`.

    Environment variables are not recorded, because they may hold secrets.
    """
    return {"versions": versions(versions_of), "cpus": os.cpu_count() or 0, **facts}
