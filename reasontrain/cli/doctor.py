"""`reasontrain doctor`: try the installation and the machine, line by line."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import torch

from reasontrain.doctor import Finding, examine
from reasontrain.types import RunError


def doctor(*, gpu: bool, out: Path | None) -> None:
    """Print the findings as they come.

    Args:
        gpu: the absence of a GPU is a fault.
        out: a file for the findings as JSON.

    Raises:
        RunError: something is broken.
    """
    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    findings = []
    if gpu and device.type == "cpu":
        missing = Finding(
            name="GPU",
            status="broken",
            detail="this process sees none",
            mend="nvidia-smi; CUDA_VISIBLE_DEVICES; a torch that is built for CUDA",
        )
        findings.append(missing)
        print(missing.line(), flush=True)
    for finding in examine(device):
        findings.append(finding)
        print(finding.line(), flush=True)
    if out is not None:
        out.write_text(json.dumps([asdict(f) for f in findings], indent=1) + "\n", encoding="utf-8")
    broken = [finding.name for finding in findings if finding.status == "broken"]
    if broken:
        raise RunError(f"broken: {', '.join(broken)}")
