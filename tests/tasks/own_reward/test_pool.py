"""Whatever the user's code does to its process, the call has an outcome, the other calls are
answered, and nothing is left behind.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from reasontrain.tasks.own_reward import Call, Outcome, RewardFile, RewardPool

CODE = b"""
import asyncio, ctypes, os, signal, subprocess, sys, time

def wild(problem, response):
    match response:
        case "exit": sys.exit(3)
        case "os._exit": os._exit(3)
        case "segfault": ctypes.string_at(0)
        case "killed": os.kill(os.getpid(), signal.SIGKILL)
        case "loop":
            while True: pass
        case "holds the interpreter": ctypes.pythonapi.sleep(1000)
        case "deaf":
            for number in (signal.SIGTERM, signal.SIGINT): signal.signal(number, signal.SIG_IGN)
            time.sleep(1000)
        case "closes": os.closerange(0, 100)
        case "reads": input()
        case "asked to stop": os.killpg(0, signal.SIGTERM)
        case "stops what it forked":
            if (child := os.fork()) == 0: time.sleep(1000)
            os.kill(child, signal.SIGTERM)
            return -os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        case "forks":
            if os.fork() == 0: time.sleep(1000)
            os._exit(4)
    return len(response)

async def judge(problem, response):
    await asyncio.sleep(0.3)
    match response:
        case "exit": sys.exit(3)
        case "os._exit": os._exit(3)
        case "slow": await asyncio.sleep(1000)
        case "raise": raise TimeoutError("the judge's")
    return 1

def sleeps(problem, response): return time.sleep(0.3) or 0.5
def pids(problem, response):
    child = subprocess.Popen(["sleep", "1000"])
    with open(problem["file"], "a") as file: print(os.getpid(), child.pid, file=file, flush=True)
    if response: time.sleep(1000)
    return 1
def prints(problem, response):
    print("from print")
    print("to stderr", file=sys.stderr)
    os.write(1, b"from C\\n")
    subprocess.run(["echo", "from a process"])
    if response: print("x" * 10 ** 6), os._exit(1)
    return 1
"""


def pool(function: str, *, timeout_s: float = 60.0, workers: int = 4) -> RewardPool:
    return RewardPool(
        RewardFile(
            path="/nowhere/own.py",
            source=CODE,
            function=function,
            timeout_s=timeout_s,
            workers=workers,
        )
    )


def scored(own: RewardPool, responses: Sequence[str], **problem: object) -> list[Outcome]:
    outcomes = own.score([(problem, text, {}) for text in responses], stop_at_failure=False)
    return [outcome for outcome in outcomes if outcome is not None]


def test_nothing_that_a_call_does_to_its_process_reaches_the_others() -> None:
    deeds = ["exit", "os._exit", "segfault", "killed", "reads", "forks", "closes"]
    with pool("wild", timeout_s=20.0, workers=2) as own:
        outcomes = scored(own, [text for deed in deeds for text in (deed, "fine")])
    assert [(o.reward, o.failure) for o in outcomes[1::2]] == [(4.0, None)] * len(deeds)
    said = {deed: (o.failure, o.message) for deed, o in zip(deeds, outcomes[::2], strict=True)}
    own_file = "/nowhere/own.py, function 'wild': the process "
    assert said == {
        "exit": ("error", "/nowhere/own.py, line 6, in wild: SystemExit: 3"),
        "os._exit": ("crash", f"{own_file}ended itself with exit code 3"),
        "segfault": ("crash", f"{own_file}was ended by signal 11 (SIGSEGV)"),
        "killed": ("crash", f"{own_file}was ended by signal 9 (SIGKILL)"),
        "reads": ("error", "/nowhere/own.py, line 17, in wild: EOFError: EOF when reading a line"),
        "forks": ("crash", f"{own_file}ended itself with exit code 4"),
        "closes": ("crash", said["closes"][1]),
    }


def test_signals_to_all_processes_of_a_job_are_the_drivers_to_act_on() -> None:
    """A scheduler's SIGTERM stops a run after its step; what the user's code started ends by it."""
    with pool("wild", timeout_s=20.0, workers=1) as own:
        stopped, terminated = scored(own, ["asked to stop", "stops what it forked"])
    assert (stopped.reward, stopped.failure) == (len("asked to stop"), None)
    assert (terminated.reward, terminated.failure) == (signal.SIGTERM, None)


def test_a_deadline_ends_whatever_a_call_is_doing() -> None:
    """`fine` has as much time, and far more than it needs."""
    with pool("wild", timeout_s=1.0, workers=4) as own:
        outcomes = scored(own, ["loop", "holds the interpreter", "deaf", "fine"])
    assert [(o.reward, o.failure) for o in outcomes] == [(None, "timeout")] * 3 + [(4.0, None)]
    assert outcomes[0].message == "/nowhere/own.py, function 'wild': did not return within 1 s"


def test_the_calls_of_an_async_function_overlap_and_fail_each_on_its_own() -> None:
    deeds = ["fine", "exit", "slow", "raise", "fine"]
    with pool("judge", timeout_s=2.0, workers=1) as own:
        own.load()
        start = time.monotonic()
        outcomes = scored(own, ["fine"] * 20)
        assert time.monotonic() - start < 3.0, "20 calls of 0.3 s in one worker"
        assert [o.reward for o in outcomes] == [1.0] * 20
        outcomes = scored(own, deeds)
        assert [o.failure for o in outcomes] == [None, "error", "timeout", "error", None]
        assert "TimeoutError: the judge's" in outcomes[3].message
        # one that ends the process fails alone: the others are called again
        assert [o.failure for o in scored(own, ["os._exit", "fine"])] == ["crash", None]


def test_calls_run_in_parallel() -> None:
    with pool("sleeps", workers=8) as own:
        scored(own, [""] * 8)
        start = time.monotonic()
        assert [o.reward for o in scored(own, [""] * 8)] == [0.5] * 8
        assert time.monotonic() - start < 8 * 0.3 / 2


def test_output_is_captured_whoever_writes_it_and_however_the_call_ends() -> None:
    with pool("prints", workers=1) as own:
        fine, dead = scored(own, ["", "dies"])
    assert fine.output == "from print\nto stderr\nfrom C\nfrom a process\n"
    assert dead.output.startswith(f"{fine.output}xxx")
    assert dead.output.endswith("\n[cut: a call may print 64 KiB]\n")


def test_a_failure_may_stop_the_calls_that_were_not_made() -> None:
    with pool("wild", workers=1) as own:
        calls: list[Call] = [({}, text, {}) for text in ("fine", "exit", "fine", "fine")]
        outcomes = own.score(calls, stop_at_failure=True)
        assert [outcome and outcome.failure for outcome in outcomes] == [None, "error", None, None]
        assert [outcome is None for outcome in outcomes] == [False, False, True, True]


def test_no_calls_need_no_worker() -> None:
    assert pool("not there").score([], stop_at_failure=True) == []


def test_a_second_ctrl_c_does_not_wait_for_the_calls_that_are_running() -> None:
    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR2, interrupt)
    timer = threading.Timer(0.5, os.kill, [os.getpid(), signal.SIGUSR2])
    try:
        with pool("wild", workers=2) as own:
            own.load()
            timer.start()
            start = time.monotonic()
            with pytest.raises(KeyboardInterrupt):
                scored(own, ["loop", "fine", "loop", "loop"])
            assert time.monotonic() - start < 20, "not the 60 s that each call has"
            assert scored(own, ["fine"])[0].reward == 4
    finally:
        signal.signal(signal.SIGUSR2, before)


def gone(pid: int) -> bool:
    """True once a process has ended; a zombie has, and waits for whoever started it."""
    for _ in range(500):
        status = Path(f"/proc/{pid}/status")
        try:
            if "State:\tZ" in status.read_text():
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.02)
    return False


def test_workers_and_what_they_started_end_with_the_pool(tmp_path: Path) -> None:
    file = tmp_path / "pids"
    with pool("pids", workers=1) as own:
        scored(own, [""], file=str(file))
    assert all(gone(int(pid)) for pid in file.read_text().split())


def test_workers_end_when_the_driver_is_killed(tmp_path: Path) -> None:
    """In the middle of a call too, which the driver can no longer end."""
    file = tmp_path / "pids"
    driver = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from tests.tasks.own_reward import test_pool as t\n"
            f"t.scored(t.pool('pids', workers=1), ['sleep'], file={str(file)!r})",
        ],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )
    try:
        for _ in range(1500):
            if file.exists() and file.read_text().endswith("\n"):
                break
            assert driver.poll() is None, "the driver ended by itself"
            time.sleep(0.02)
    finally:
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    pids = [int(pid) for pid in file.read_text().split()]
    assert len(pids) == 2
    assert all(gone(pid) for pid in pids)
