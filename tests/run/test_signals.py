"""A request to stop is acknowledged at once, obeyed within a limit, and enforced at the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from reasontrain.run.signals import Stop, StopNow

PRELUDE = """
import logging, signal, sys, time
logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(message)s")
from reasontrain.run import signals
signals.STUCK_S = 0.2
signals.CLEANUP_S = 0.2
"""
DEADLOCK = """
import ctypes
mutex = ctypes.create_string_buffer(64)
print("ready", flush=True)
for _ in range(2):
    ctypes.CDLL(None).pthread_mutex_lock(mutex)
"""
"""A call that never returns: the main thread runs no bytecode, and so none of its handlers."""
SWALLOW = """
while True:
    try:
        print("ready", flush=True)
        time.sleep(60)
    except BaseException:
        pass
"""


def script(work: str, limit_s: float | None) -> tuple[subprocess.Popen[str], float]:
    """A process that does this work while it listens, and the time at which it was ready."""
    lines = "".join(f"\n    {line}" for line in work.splitlines())
    text = (
        f"{PRELUDE}\nwith signals.Stop(limit_s={limit_s}, limit_key='key').listening() as stop:"
        f"{lines}\n"
    )
    process = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process, time.monotonic()


def rest(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    output = process.stdout.read()
    process.stdout.close()
    process.wait(20)
    return output


def test_a_first_signal_is_noted_and_a_second_stops(caplog: pytest.LogCaptureFixture) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    seen: list[object] = []
    stop = Stop(limit_s=60.0, limit_key="key")

    def work() -> None:
        with stop.listening():
            os.kill(os.getpid(), signal.SIGTERM)
            wait_for(caplog, "SIGTERM: stopping after this step; a second signal stops at once")
            seen.append(stop.signal)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)  # interrupted

    with pytest.raises(StopNow, match="stopped by SIGTERM"):
        work()
    assert seen == [signal.SIGTERM]
    wait_for(caplog, "SIGINT: stopping at once")
    assert signal.getsignal(signal.SIGTERM) == handler
    assert not [t for t in threading.enumerate() if t.name == "stop"]


def wait_for(caplog: pytest.LogCaptureFixture, text: str) -> None:
    end = time.monotonic() + 1
    while not any(text in message for message in caplog.messages):
        assert time.monotonic() < end, caplog.messages
        time.sleep(0.01)


def test_work_that_can_stop_at_any_moment_stops_at_the_first_signal() -> None:
    def work() -> None:
        with Stop().listening():
            os.kill(os.getpid(), signal.SIGUSR1)
            time.sleep(5)

    with pytest.raises(StopNow, match="stopped by SIGUSR1"):
        work()
    with Stop(limit_s=60.0).listening() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        while stop.signal is None:
            time.sleep(0.01)
        with pytest.raises(StopNow), stop.at_once():  # it came before
            pytest.fail("never reached")


def test_other_threads_do_not_listen() -> None:
    seen = []

    def listen() -> None:
        with Stop().listening() as stop:
            seen.append(stop.signal)

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert seen == [None]


def test_a_step_that_does_not_end_is_interrupted_at_its_limit() -> None:
    process, _ = script("print('ready', flush=True)\ntime.sleep(60)", 0.2)
    process.send_signal(signal.SIGTERM)
    output = rest(process)
    assert "the step did not end within 0.2 s (key); stopping with the last checkpoint" in output
    assert process.returncode != 0


@pytest.mark.parametrize("limit_s", [0.2, None])
def test_a_call_that_never_returns_is_answered_and_ended(limit_s: float | None) -> None:
    process, since = script(DEADLOCK, limit_s)
    process.send_signal(signal.SIGTERM)
    assert process.stdout is not None
    line = process.stdout.readline()
    assert time.monotonic() - since < 1
    assert line.startswith("SIGTERM: stopping after this step" if limit_s else "SIGTERM: stopping")
    rest(process)
    assert process.returncode != 0


def test_work_that_swallows_the_request_is_ended() -> None:
    process, _ = script(SWALLOW, None)
    process.send_signal(signal.SIGTERM)
    assert "the process does not react and is ended" in rest(process)
    assert process.returncode == 1
