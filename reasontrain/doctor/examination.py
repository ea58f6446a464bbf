"""The order of the checks, and what an error inside one of them means."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch

from reasontrain.doctor import installation, kernels, machine, runs
from reasontrain.doctor.finding import Finding
from reasontrain.types import RunError, UserError

Check = Callable[[torch.device], Iterator[Finding]]
CHECKS: tuple[tuple[str, Check], ...] = (
    ("packages", installation.packages),
    ("devices", machine.devices),
    ("memory", machine.memory),
    ("threads", machine.threads),
    ("matrix products", kernels.matrix_products),
    ("attention", kernels.attention),
    ("vocabulary", kernels.vocabulary),
    ("methods", runs.methods),
    ("Ray", runs.ray),
    ("vLLM", runs.vllm),
    ("Slurm", machine.slurm),
)
"""Checks by name, in an order in which a later one relies on those before it."""


def examine(device: torch.device) -> Iterator[Finding]:
    """Run all checks and yield their findings as they come.

    An error of a check is its finding, and the next check runs.

    Args:
        device: where models lie: a GPU, or the CPU.
    """
    for name, check in CHECKS:
        start = time.monotonic()
        try:
            for finding in check(device):
                yield replace(finding, seconds=round(time.monotonic() - start, 2))
                start = time.monotonic()
        except (UserError, RunError) as error:
            yield Finding(name=name, status="broken", detail=str(error))
        except Exception as error:  # whatever a library raises is what is broken here
            text = " ".join(f"{type(error).__name__}: {error}".split())
            yield Finding(name=name, status="broken", detail=text[:300])
