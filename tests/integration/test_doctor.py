"""`reasontrain doctor` on a machine where everything works: every line, Ray's and vLLM's too."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from reasontrain.doctor.runs import METHODS
from tests.integration.processes import ROOT, environment

pytestmark = [pytest.mark.integration, pytest.mark.xdist_group("vllm")]


def test_nothing_is_broken_here(tmp_path: Path) -> None:
    out = tmp_path / "doctor.json"
    command = [sys.executable, "-m", "reasontrain", "doctor", "--out", str(out)]
    ended = subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=400
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    findings = {finding["name"]: finding for finding in json.loads(out.read_text())}
    statuses = {name: finding["status"] for name, finding in findings.items()}
    assert "broken" not in statuses.values()
    assert [statuses[name] for name in METHODS] == ["ok"] * len(METHODS)
    assert statuses["Ray, 2 ranks, sampler"] == "ok"
    there = importlib.util.find_spec("vllm") is not None
    assert statuses["vLLM"] == ("ok" if there else "absent")
    assert statuses.get("GPUs", "ok") == ("ok" if torch.cuda.is_available() else "absent")
    lines = ended.stdout.splitlines()
    assert len(lines) == len(findings)  # nothing of a library stands between them
