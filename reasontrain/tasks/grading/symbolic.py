"""Algebraic equality through math-verify, in a pool of worker processes that can be killed; no text
is evaluated here.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from queue import LifoQueue
from types import TracebackType
from typing import Literal

from reasontrain.types import RunError

Failure = Literal["timeout", "memory", "crash"]
START_LIMIT_S = 120.0
STARVED = 20.0
"""A worker that gets less than this fraction (1 in ...) of a core is taken for stuck."""
GRACE_S = 1.0
"""How much longer than the worker's own alarm the parent waits before it kills."""


@dataclass(frozen=True)
class Decided:
    """One truth value per (gold, answer) pair, and the seconds of computing that it took."""

    equal: Sequence[bool]
    spent_s: float


class DeadWorkerError(Exception):
    """The worker did not start, or did not answer; `reason` says why."""

    def __init__(self, reason: Failure) -> None:
        super().__init__(reason)
        self.reason: Failure = reason


class GraderProcess:
    """One worker (a process that forks, and its child) and the two pipes to it."""

    def __init__(self, *, memory_bytes: int) -> None:
        script = Path(__file__).with_name("worker.py")
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(script), str(memory_bytes)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                bufsize=0,
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
        """What algebra says within `limit_s` of computing; raises DeadWorkerError, after which the
        worker must be killed.
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
        with suppress(ProcessLookupError, PermissionError):  # ended by itself
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        with suppress(DeadWorkerError):
            while True:  # until the pipe closes: then the child is gone too
                self._read_line(GRACE_S)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def _read_line(self, limit_s: float) -> object:
        assert self._process.stdout is not None
        poll, deadline, line = select.poll(), time.monotonic() + limit_s, b""
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


class Pool:
    """Up to `num_workers` workers, started when first needed and replaced when they die; may be
    used from any thread.
    """

    def __init__(self, *, num_workers: int, memory_bytes: int) -> None:
        if find_spec("math_verify") is None:
            raise RunError(
                "answers are graded with math-verify, which is not installed; run `pip "
                "install math-verify`"
            )
        self._memory_bytes = memory_bytes
        self._slots: LifoQueue[GraderProcess | None] = LifoQueue()
        self._num_slots = num_workers
        self._closing = threading.Lock()
        for _ in range(num_workers):
            self._slots.put(None)

    def equal(self, pairs: Sequence[tuple[str, str]], limit_s: float) -> Decided | Failure:
        """What algebra says within the limit, or why it says nothing; a worker that died is
        replaced and asked once more.
        """
        reply = self._ask(pairs, limit_s)
        return self._ask(pairs, limit_s) if reply == "crash" else reply

    def _ask(self, pairs: Sequence[tuple[str, str]], limit_s: float) -> Decided | Failure:
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

    def close(self) -> None:
        """End every worker; waits for the answers that are being looked at."""
        with self._closing:
            for worker in [self._slots.get() for _ in range(self._num_slots)]:
                if worker is not None:
                    worker.kill()
                self._slots.put(None)

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
