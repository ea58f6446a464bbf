"""The worker processes answer, die, are replaced and are gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from reasontrain.tasks.grading import symbolic
from reasontrain.tasks.grading.symbolic import DeadWorkerError, Decided, GraderProcess, Pool
from reasontrain.types import RunError
from tests.tasks.grading.hostile import SLOW


def decided(pool: Pool, *pairs: tuple[str, str]) -> Sequence[bool]:
    found = pool.equal(pairs, 20.0)
    assert isinstance(found, Decided), found
    return found.equal


def processes(pool: Pool) -> list[int]:
    return [worker._process.pid for worker in pool._slots.queue if worker is not None]


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
        (
            r"\frac{2^{2005}+1}{3 \cdot 2^{2006}}",
            r"\frac{1}{3 \cdot 2^{2006}}",
            False,
        ),  # 1/6 against almost nothing
        ("2^{-100}", "3^{-100}", False),  # both round to zero
    ],
)
def test_algebra(pool: Pool, gold: str, answer: str, equal: bool) -> None:
    assert decided(pool, (gold, answer)) == [equal]


def test_too_slow_is_a_timeout_and_the_next_answer_is_right(pool: Pool) -> None:
    assert decided(pool, ("x+x", "2x")) == [True]
    before = processes(pool)
    assert pool.equal([("3", SLOW[0])], 0.3) == "timeout"
    assert decided(pool, ("x+x", "2x")) == [True]
    assert (
        processes(pool) == before
    )  # another child of the same process: SymPy was not imported again


def test_a_worker_that_waits_for_the_processor_is_not_slow() -> None:
    """Stopped for longer than its limit, as on a loaded machine, it still has all of its time."""
    worker = GraderProcess(memory_bytes=1 << 30)
    os.killpg(worker._process.pid, signal.SIGSTOP)
    threading.Timer(1.5, os.killpg, (worker._process.pid, signal.SIGCONT)).start()
    found = worker.equal([("x+x", "2x")], 1.0)
    assert isinstance(found, Decided)
    assert found.equal == [True]
    assert 0.0 < found.spent_s < 1.0
    worker.kill()


def test_a_worker_that_gets_no_processor_at_all_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(symbolic, "STARVED", 1.0)
    worker = GraderProcess(memory_bytes=1 << 30)
    os.killpg(worker._process.pid, signal.SIGSTOP)
    with pytest.raises(DeadWorkerError, match="timeout"):
        worker.equal([("x+x", "2x")], 0.1)
    worker.kill()


def test_python_code_is_not_run(pool: Pool, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    codes = [f"__import__('os').system('touch {trap}')", f"open('{trap}','w').close()"]
    assert decided(pool, *[("0", code) for code in codes]) == [False, False]
    assert not trap.exists()


def test_a_worker_that_is_killed_is_a_crash() -> None:
    worker = GraderProcess(memory_bytes=1 << 30)
    os.killpg(worker._process.pid, signal.SIGKILL)
    with pytest.raises(DeadWorkerError, match="crash"):
        worker.equal([("x", "y")], 5.0)
    worker.kill()


def test_a_worker_that_somebody_killed_is_replaced_and_asked_again() -> None:
    with Pool(num_workers=1, memory_bytes=1 << 30) as pool:
        assert decided(pool, ("x+x", "2x")) == [True]
        (worker,) = pool._slots.queue
        assert worker is not None
        os.killpg(worker._process.pid, signal.SIGKILL)
        assert decided(pool, ("x+x", "2x")) == [True]


def test_a_worker_that_never_starts_is_a_verdict_and_no_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for executable in ("/bin/false", "/there/is/no/such/python"):
        monkeypatch.setattr(sys, "executable", executable)
        with Pool(num_workers=1, memory_bytes=1 << 30) as pool:
            assert pool.equal([("x+x", "2x")], 20.0) == "crash"


def test_where_there_is_no_sympy_grading_does_not_begin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(symbolic, "find_spec", lambda name: None)
    with pytest.raises(RunError, match="SymPy, which is not installed"):
        Pool(num_workers=1, memory_bytes=1 << 30)


ORPHANS = """
import json, os, signal, subprocess, time
from reasontrain.tasks.grading.symbolic import GraderProcess
idle, busy = (GraderProcess(memory_bytes=1 << 30) for _ in range(2))
busy._process.stdin.write(json.dumps([60.0, 60.0, [["3", SLOW]]]).encode() + b"\\n")
time.sleep(0.5)
groups = f"{idle._process.pid},{busy._process.pid}"
listed = subprocess.run(["pgrep", "-g", groups], capture_output=True, text=True)
children = [int(pid) for pid in listed.stdout.split()]
print(*children, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_workers_end_with_a_killed_parent_idle_or_busy() -> None:
    root = Path(__file__).parents[3]
    command = [sys.executable, "-c", ORPHANS.replace("SLOW", repr(SLOW[0]))]
    run = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    workers = [int(process) for process in run.stdout.split()]
    assert len(workers) == 4, run.stderr  # two that fork, two that answer
    deadline = time.monotonic() + 15.0  # algebra alone would take far longer
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
