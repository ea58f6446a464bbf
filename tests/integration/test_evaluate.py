"""`reasontrain evaluate --workers`: the bytes of one process, also where a worker is killed over
its part.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from reasontrain.cli import main
from tests.integration.processes import ROOT, Process, environment, until

pytestmark = pytest.mark.integration

WORDS = (
    *("reasontrain", "evaluate", "testbed:student", "--suite", "arithmetic", "--dtype", "float32"),
    *("--set", "task.num_problems=600", "num_samples=2"),
    *("sampling.temperature=1.0", "sampling.max_tokens=60", "--out"),
)


@pytest.fixture(scope="module")
def single_worker_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one process writes; 600 problems are parts of 256, 256 and 88."""
    out = tmp_path_factory.mktemp("alone")
    assert main([*WORDS[1:], str(out)]) == 0
    return files(out)


def files(out: Path) -> dict[str, bytes]:
    """Answers, protocol and report."""
    return {
        path.name: path.read_bytes()
        for path in (out / "testbed-student").iterdir()
        if path.is_file()
    }


def test_several_workers_write_what_one_process_writes(
    single_worker_files: dict[str, bytes], tmp_path: Path
) -> None:
    subprocess.run(
        [*WORDS, str(tmp_path), "--workers", "2"], cwd=ROOT, env=environment(), check=True
    )
    assert files(tmp_path) == single_worker_files
    assert sorted(path.name for path in (tmp_path / "testbed-student" / "logs").glob("*.log")) == [
        "sampler-0.log",
        "sampler-1.log",
    ]


def test_the_part_of_a_worker_that_was_killed_is_asked_again(
    single_worker_files: dict[str, bytes], tmp_path: Path
) -> None:
    process = Process(
        [*WORDS, str(tmp_path), "--workers", "2"], tmp_path / "log", environment(), cwd=ROOT
    )
    about = tmp_path / "testbed-student" / "logs" / "sampler-1.json"
    try:
        until(about.exists, limit_s=300, what="the workers", watch=[process])
        os.kill(int(json.loads(about.read_text())["pid"]), signal.SIGKILL)
        until(lambda: process.ended, limit_s=300, what="the end")
        said = process.log.read_text()
        assert process.popen.returncode == 0, said
        assert "restarting it (2 restarts left)" in said
    finally:
        process.end()
    assert files(tmp_path) == single_worker_files
