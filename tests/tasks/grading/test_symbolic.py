"""The worker processes answer, die, are replaced and are gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from reasontrain.tasks.grading.symbolic import DeadWorkerError, Pool, Worker

SLOW = r"\int_0^{\infty} e^{-x^{x}} dx"


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with Pool(num_workers=1, memory_bytes=1 << 30) as pool:
        yield pool


@pytest.mark.parametrize(
    ("gold", "answer", "equal"),
    [
        ("x+1", "1+x", True),
        ("(r+5)^2", "(r+5)(r+5)", True),
        (r"\frac{3\sqrt{5}}{7}", "(3*sqrt(5))/7", True),
        ("2**(1/4)", r"\sqrt{\sqrt{2}}", True),
        (r"2\pi", r"\pi", False),
        ("x > 5", "x < 5", False),
        ("2x+4y-3=0", r"y=-\frac{1}{2}x+\frac{3}{4}", True),
        (r"\frac{2^{2005}+1}{3 \cdot 2^{2006}}", r"\frac{1}{3 \cdot 2^{2006}}", False),  # 1/6 against almost nothing
        ("2^{-100}", "3^{-100}", False),  # math-verify alone rounds both to zero
    ],
)
def test_algebra(pool: Pool, gold: str, answer: str, equal: bool) -> None:
    assert pool.equal([(gold, answer)], 20.0) == [equal]


def test_too_slow_is_a_timeout_and_the_next_answer_is_right(pool: Pool) -> None:
    start = time.monotonic()
    assert pool.equal([("3", SLOW)], 0.3) == "timeout"
    assert time.monotonic() - start < 15.0
    assert pool.equal([("x+x", "2x")], 20.0) == [True]


def test_python_code_is_not_run(pool: Pool, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    codes = [f"__import__('os').system('touch {trap}')", f"open('{trap}','w').close()"]
    assert pool.equal([("0", code) for code in codes], 20.0) == [False, False]
    assert not trap.exists()


def test_a_worker_that_is_killed_is_a_crash() -> None:
    worker = Worker(memory_bytes=1 << 30)
    os.kill(worker._process.pid, signal.SIGKILL)
    with pytest.raises(DeadWorkerError, match="crash"):
        worker.equal([("x", "y")], 5.0)
    worker.kill()


ORPHANS = """
import json, os, signal
from reasontrain.tasks.grading.symbolic import Worker
idle, busy = Worker(memory_bytes=1 << 30), Worker(memory_bytes=1 << 30)
busy._process.stdin.write(json.dumps([1.0, [["3", SLOW]]]).encode() + b"\\n")
print(idle._process.pid, busy._process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_workers_end_with_a_killed_parent_idle_or_busy() -> None:
    root = Path(__file__).parents[3]
    command = [sys.executable, "-c", ORPHANS.replace("SLOW", repr(SLOW))]
    run = subprocess.run(command, capture_output=True, text=True, cwd=root, env={**os.environ, "PYTHONPATH": str(root)})
    workers = [int(process) for process in run.stdout.split()]
    assert len(workers) == 2, run.stderr
    deadline = time.monotonic() + 5.0  # the busy one has a limit of 1 s; algebra alone would take far longer
    while any(is_alive(worker) for worker in workers):
        assert time.monotonic() < deadline, "a worker outlived its parent"
        time.sleep(0.02)


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{process}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"
