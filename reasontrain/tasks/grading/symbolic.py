"""Algebraic equality through math-verify, in a pool of worker processes that can be killed; no text is evaluated here."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from queue import LifoQueue
from types import TracebackType
from typing import Literal

from reasontrain.types import RunError

Failure = Literal["timeout", "memory", "crash"]
START_LIMIT_S = 120.0
GRACE_S = 1.0
"""How much longer than the worker's own alarm the parent waits before it kills."""


class DeadWorkerError(Exception):
    """The worker did not answer; `reason` says why."""

    def __init__(self, reason: Failure) -> None:
        super().__init__(reason)
        self.reason: Failure = reason


class Worker:
    """One worker process and the two pipes to it."""

    def __init__(self, *, memory_bytes: int) -> None:
        script = Path(__file__).with_name("worker.py")
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(script), str(memory_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            bufsize=0,
        )
        try:
            self._read_line(START_LIMIT_S)
        except DeadWorkerError as dead:
            self.kill()
            raise RunError(
                f"a grader process did not start ({dead.reason}); "
                f"is math-verify installed, and is there memory for {memory_bytes >> 20} MiB?"
            ) from dead

    def equal(self, pairs: Sequence[tuple[str, str]], limit_s: float) -> list[bool]:
        """One truth value per (gold, answer) pair; raises DeadWorkerError, after which the worker must be killed."""
        assert self._process.stdin is not None
        started = time.monotonic()
        try:
            self._process.stdin.write(json.dumps([limit_s, pairs]).encode() + b"\n")
            reply = self._read_line(limit_s + GRACE_S)
        except OSError as error:
            raise DeadWorkerError("crash") from error
        except DeadWorkerError as dead:
            raise DeadWorkerError("timeout" if time.monotonic() - started >= limit_s else dead.reason) from dead
        if not isinstance(reply, list):
            raise DeadWorkerError("memory")
        return reply

    def kill(self) -> None:
        """End the process now and reap it."""
        self._process.kill()
        self._process.wait()
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
    """Up to `num_workers` workers, started when first needed and replaced when they die; may be used from any thread."""

    def __init__(self, *, num_workers: int, memory_bytes: int) -> None:
        self._memory_bytes = memory_bytes
        self._slots: LifoQueue[Worker | None] = LifoQueue()
        self._num_slots = num_workers
        self._closing = threading.Lock()
        for _ in range(num_workers):
            self._slots.put(None)

    def equal(self, pairs: Sequence[tuple[str, str]], limit_s: float) -> list[bool] | Failure:
        """One truth value per (gold, answer) pair, or why there is none within the limit."""
        worker = self._slots.get()
        try:
            worker = worker or Worker(memory_bytes=self._memory_bytes)
            return worker.equal(pairs, limit_s)
        except DeadWorkerError as dead:
            assert worker is not None
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

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
