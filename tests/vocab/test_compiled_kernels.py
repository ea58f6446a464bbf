"""The Triton kernels compile for three generations of GPUs, which need not be present."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.test_architecture import ROOT

pytest.importorskip("triton", reason="Triton is for Linux")

ARCHITECTURES = (80, 90, 100)
"""A100, H100 and H200, B200."""
LARGEST_NUM_REGISTERS = 128
"""Two blocks of 8 warps fit an SM with 65,536 registers: 65,536 / (2 x 256 threads)."""


@pytest.mark.parametrize(
    ("options", "num_kernels"),
    [([], 2 + 1 + 7), pytest.param(["--every"], 2 * (2 + 1 + 2**5), marks=pytest.mark.slow)],
    ids=["used", "every"],
)
def test_kernels_compile_without_spills_and_without_a_warning(
    options: list[str], num_kernels: int
) -> None:
    """A spilled register is bytes of stack, which the inner loop reads and writes in memory."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.vocab.compiled_kernels", *options]
        + [str(arch) for arch in ARCHITECTURES],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert {row["arch"] for row in rows} == set(ARCHITECTURES)
    assert len(rows) == len(ARCHITECTURES) * num_kernels
    too_large = [
        row for row in rows if row["stack"] > 0 or row["registers"] > LARGEST_NUM_REGISTERS
    ]
    assert not too_large
