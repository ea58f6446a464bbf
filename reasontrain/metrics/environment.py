"""Versions of the installed packages, for the records of a run."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from importlib import metadata


def versions(names: Sequence[str]) -> dict[str, str]:
    """Versions of those of these packages that are installed."""
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def environment(versions_of: Sequence[str], facts: Mapping[str, object]) -> dict[str, object]:
    """Versions of packages that are installed, and the facts given; no secret is read."""
    return {"versions": versions(versions_of), "cpus": os.cpu_count() or 0, **facts}
