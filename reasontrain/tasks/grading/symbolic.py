"""Algebraic equality by SymPy, in a pool of worker processes that can be killed.

A time limit by a signal handler fails off the main thread and cannot interrupt a hang that holds
the interpreter lock. A process can be killed in any state.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from reasontrain.tasks.worker_slots import WorkerSlots
from reasontrain.types import RunError

Failure = Literal["timeout", "memory", "crash"]
START_LIMIT_S = 120.0
"""Wall time that a worker may take to start, most of it for importing SymPy."""
STARVED = 20.0
"""Wall time allowed per processor time: a worker with less than 1/20 of a core counts as stuck."""
GRACE_S = 1.0
"""Wall time that the parent waits after the worker's own alarm before it kills the worker."""


@dataclass(frozen=True)
class Decided:
    """One truth value per (gold, answer) pair, and the processor time in seconds."""

    equal: Sequence[bool]
    spent_s: float


class DeadWorkerError(Exception):
    """The worker did not start or did not reply, for this `reason`."""

    def __init__(self, reason: Failure) -> None:
        super().__init__(reason)
        self.reason: Failure = reason


class GraderProcess:
    """One worker (a process and its forked child), and the two pipes to it."""

    def __init__(self, *, memory_bytes: int) -> None:
        script = Path(__file__).with_name("worker.py")
        try:
            self._process = subprocess.Popen(
                # -P: a file `re.py` beside the worker or in the working directory is not imported
                [sys.executable, "-P", str(script), str(memory_bytes)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                bufsize=0,
                # a separate process group: `kill` reaches the child too, and Ctrl-C reaches neither
                process_group=0,
            )
        except OSError as error:
            raise DeadWorkerError("crash") from error
        try:
            self._read_line(START_LIMIT_S)
        except DeadWorkerError as dead:
            self.kill()
            raise DeadWorkerError("crash") from dead

    def equal(self, pairs: Sequence[tuple[str, str]], limit_s: float) -> Decided | Failure:
        """Compare the pairs within `limit_s` of processor time.

        Raises DeadWorkerError, after which the worker must be killed.
        """
        assert self._process.stdin is not None
        wall_s = STARVED * limit_s
        try:
            self._process.stdin.write(json.dumps([limit_s, wall_s, pairs]).encode() + b"\n")
            reply = self._read_line(wall_s + GRACE_S)
        except OSError as error:
            raise DeadWorkerError("crash") from error
        match reply:
            case [float() as spent_s, list() as equal]:
                return Decided(equal, spent_s)
            case "timeout" | "memory":
                return reply
        raise DeadWorkerError("crash")

    def kill(self) -> None:
        """End the process and its child now, and reap it."""
        # the process may have ended by itself
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        with suppress(DeadWorkerError):
            # the child holds the pipe open too: once it closes, both are gone
            while True:
                self._read_line(GRACE_S)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def _read_line(self, limit_s: float) -> object:
        assert self._process.stdout is not None
        poll = select.poll()
        deadline = time.monotonic() + limit_s
        line = b""
        poll.register(self._process.stdout, select.POLLIN)
        while not line.endswith(b"\n"):
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise DeadWorkerError("timeout")
            chunk = os.read(self._process.stdout.fileno(), 1 << 16)
            if not chunk:
                raise DeadWorkerError("crash")
            line += chunk
        value: object = json.loads(line)
        return value


class Pool(WorkerSlots[GraderProcess]):
    """Up to `num_workers` workers, started when needed and replaced when they die.

    It may be used from any thread.
    """

    def __init__(self, *, num_workers: int, memory_bytes: int) -> None:
        if find_spec("sympy") is None:
            raise RunError("grading needs SymPy, which is not installed; run `pip install sympy`")
        super().__init__(num_workers)
        self._memory_bytes = memory_bytes

    def equal(self, pairs: Sequence[tuple[str, str]], limit_s: float) -> Decided | Failure:
        """Compare the pairs, or return the reason of a failure.

        After a crash, the comparison is repeated once in a new worker.
        """
        reply = self._compare(pairs, limit_s)
        # the crash may be due to an earlier request, or to the machine
        return self._compare(pairs, limit_s) if reply == "crash" else reply

    def _compare(self, pairs: Sequence[tuple[str, str]], limit_s: float) -> Decided | Failure:
        worker = self._slots.get()
        try:
            worker = worker or GraderProcess(memory_bytes=self._memory_bytes)
            return worker.equal(pairs, limit_s)
        except DeadWorkerError as dead:
            if worker is not None:
                worker.kill()
                worker = None
            return dead.reason
        finally:
            self._slots.put(worker)
