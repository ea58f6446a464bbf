"""Installed packages beside the ranges that are tested."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib import metadata

import torch
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from reasontrain.doctor.finding import Finding

SHOWN = ("torch", "transformers", "deepspeed", "ray", "trl", "peft")
"""Packages whose versions are named even if nothing is wrong."""
MEND = "pip install -c constraints.txt reasontrain"


def packages(device: torch.device) -> Iterator[Finding]:
    """Python and every dependency: installed, and within its range."""
    about = metadata.metadata("reasontrain")
    yield of_python(platform.python_version(), about["Requires-Python"])
    texts = metadata.requires("reasontrain") or []
    requirements = [Requirement(text) for text in texts]
    needed = [r for r in requirements if r.marker is None or r.marker.evaluate({"extra": ""})]
    yield of_dependencies(needed, {r.name: _version(r.name) for r in needed})


def of_python(version: str, requirement: str) -> Finding:
    """The finding about Python itself."""
    if version in SpecifierSet(requirement):
        return Finding(name="Python", status="ok", detail=version)
    return Finding(
        name="Python",
        status="broken",
        detail=f"{version} is outside {requirement}",
        mend="make an environment with another Python",
    )


def of_dependencies(needed: list[Requirement], versions: dict[str, str | None]) -> Finding:
    """The finding about packages, of which `versions` says what is installed."""
    wrong = [
        f"{r.name} {versions[r.name]} is outside {r.specifier}"
        if versions[r.name]
        else f"{r.name} is missing"
        for r in needed
        # a local version, such as 2.13.0+cpu, is in the range of its public one
        if not r.specifier.contains(versions[r.name] or "", prereleases=True)
    ]
    if wrong:
        return Finding(name="packages", status="broken", detail="; ".join(wrong), mend=MEND)
    named = ", ".join(f"{name} {versions[name]}" for name in SHOWN if versions.get(name))
    return Finding(name="packages", status="ok", detail=f"{len(needed)} within range: {named}")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
