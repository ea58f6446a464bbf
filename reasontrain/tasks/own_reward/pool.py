"""Calls of the user's reward function, in parallel, by processes that can be killed."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import wait
from pathlib import Path
from typing import IO, ClassVar, Literal, cast

from reasontrain.tasks.worker_slots import WorkerSlots
from reasontrain.types import UserError

logger = logging.getLogger(__name__)

Failure = Literal["error", "timeout", "crash"]
LOAD_LIMIT_S = 600.0
"""Time to load the user's file, which may read a model."""
SLOW_LOAD_S = 20.0
"""Time after which the user is told that the file is still being loaded."""
GRACE_S = 1.0
"""Time beyond a deadline after which a worker with concurrent calls is killed."""
POLL_S = 1.0
"""Interval at which a silent worker is checked for life."""
MAX_CONCURRENT = 32
"""Calls of an async function that one worker runs at the same time."""
MAX_OUTPUT = 1 << 16
"""Bytes kept of what a call prints."""
CUT = b"\n[cut: a call may print 64 KiB]\n"

Call = tuple[Mapping[str, object], str, Mapping[str, bool]]
"""The arguments of a call: the problem as a dict, the response, and facts about it by name, of
which the function gets those that it has a parameter for.
"""


@dataclass(frozen=True, kw_only=True)
class RewardFile:
    """A function in a Python file, and the limits of its calls.

    Attributes:
        path: the file's absolute path.
        source: the file's content, which every worker runs whatever happens to the file.
        function: the function's name.
        timeout_s: limit of one call, in seconds of wall time.
        workers: worker processes.
    """

    path: str
    source: bytes
    function: str
    timeout_s: float
    workers: int


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The outcome of one call.

    Attributes:
        reward: the reward; None if the function gave none, or failed.
        parts: other numbers that the function returned, by name.
        failure: "error" (an exception, or not a number), "timeout" or "crash" (the process ended);
            None if the function returned.
        message: the failure in words, with the user's file, line and function where known.
        trace: the user's frames, as Python shows them; "" if unknown.
        output: text that the call printed to standard output or error.
    """

    reward: float | None = None
    parts: Mapping[str, float] = field(default_factory=dict)
    failure: Failure | None = None
    message: str = ""
    trace: str = ""
    output: str = ""


class LostWorkerError(Exception):
    """The worker ended, or exceeded its limit, for this `reason`; `output` is what it printed."""

    def __init__(self, failure: Failure, reason: str, output: str) -> None:
        super().__init__(reason)
        self.failure: Failure = failure
        self.reason = reason
        self.output = output


class RewardProcess:
    """One worker: a process that guards a child, in which the user's code runs."""

    is_environment: ClassVar[bool] = False

    def __init__(self, file: RewardFile) -> None:
        """Start the process and load the file; raise UserError if that fails."""
        self._file = file
        self._connection, worker_end = Pipe()
        with worker_end:
            fd = worker_end.fileno()
            self._process = subprocess.Popen(
                # -P: a file `re.py` beside the worker is not imported; -u: what a killed worker
                # printed is not lost in a buffer
                [sys.executable, "-P", "-u", str(Path(__file__).with_name("worker.py")), str(fd)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                # one thread per worker, unless the user says otherwise: workers share the cores
                env={"OMP_NUM_THREADS": "1", **os.environ},
                pass_fds=(fd,),
                bufsize=0,
                # `kill` reaches what the user's code started too, and Ctrl-C reaches neither
                process_group=0,
            )
        os.set_blocking(self._stdout.fileno(), False)
        self._prints = True
        self._printed = ""
        try:
            self.concurrent = self._load()
        except UserError:
            self.kill()
            raise

    def call(self, calls: Sequence[Call]) -> list[Outcome]:
        """Make calls at the same time if the function is async; otherwise one at a time.

        Raises LostWorkerError, after which the worker must be killed.
        """
        limit_s = self._file.timeout_s
        # the worker itself ends async calls in time, if it can
        wait_s = limit_s + GRACE_S if self.concurrent else limit_s
        reply, output = self._exchange((calls, limit_s), wait_s)
        output = self._printed + output
        self._printed = ""
        replies = cast("list[dict[str, object]]", reply)
        # the output of concurrent calls cannot be told apart: it goes to the first of them
        outputs = [output, *[""] * (len(calls) - 1)]
        return [self._outcome(r, o) for r, o in zip(replies, outputs, strict=True)]

    def interrupt(self) -> None:
        """End the worker and all that it started, from another thread than the one it serves."""
        # the process may have ended by itself, and what it started may be alive
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def kill(self) -> None:
        """End the worker and all that it started, now, and reap it."""
        self.interrupt()
        self._process.wait()
        self._connection.close()
        self._stdout.close()

    @property
    def _stdout(self) -> IO[bytes]:
        assert self._process.stdout is not None
        return self._process.stdout

    def _load(self) -> bool:
        """Load the file; return whether the function is async."""
        file = self._file
        folder = str(Path(file.path).parent)
        # last: a file named like a module of Python must not take its place
        folders = [*(path for path in sys.path if path), folder]
        slow = threading.Timer(
            SLOW_LOAD_S, logger.warning, [f"{file.path} is still being loaded by a worker"]
        )
        slow.daemon = True
        slow.start()
        try:
            reply, output = self._exchange(
                (file.path, file.source, file.function, folders, self.is_environment),
                LOAD_LIMIT_S,
            )
        except LostWorkerError as dead:
            printed = f"; it printed:\n{dead.output}" if dead.output.strip() else ""
            raise UserError(f"{file.path} cannot be loaded: {dead.reason}{printed}") from dead
        finally:
            slow.cancel()
        self._printed = output
        match reply:
            case {"concurrent": bool() as concurrent}:
                return concurrent
            case {"missing": str() as public}:
                raise UserError(self._missing(public))
            case {"error": str() as error, **where}:
                line = f", line {where['line']}" if "line" in where else ""
                raise UserError(f"{file.path}{line}: the file cannot be loaded: {error}")
        raise AssertionError(f"not a reply of the worker: {reply!r}")

    def _missing(self, public: str) -> str:
        """The error of a file without the function, with the names that it does define."""
        file = self._file
        return f"{file.path} defines no function {file.function!r} (it defines: {public})"

    def _outcome(self, reply: Mapping[str, object], output: str) -> Outcome:
        match reply:
            case {"reward": float() | int() | None as reward, "parts": dict() as parts}:
                return Outcome(reward=reward, parts=parts, output=output)
            case {"timeout": True}:
                return _failed(self._file, "timeout", _too_slow(self._file.timeout_s), output)
            case {"error": str() as error, **where}:
                place = (
                    f"{self._file.path}, line {where['line']}, in {where['function']}"
                    if "line" in where
                    else f"{self._file.path}, function {self._file.function!r}"
                )
                return Outcome(
                    failure="error",
                    message=f"{place}: {error}",
                    trace=str(where.get("trace", "")),
                    output=output,
                )
        raise AssertionError(f"not a reply of the worker: {reply!r}")

    def _exchange(self, request: object, limit_s: float) -> tuple[object, str]:
        """Send a request; return the reply and the output meanwhile."""
        output = bytearray()
        deadline = time.monotonic() + limit_s
        try:
            self._connection.send(request)
            while True:
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    self._drain(output)
                    raise LostWorkerError("timeout", _too_slow(limit_s), _text(output))
                reply_fd = self._connection.fileno()
                fds = [reply_fd, self._stdout.fileno()] if self._prints else [reply_fd]
                ready = wait(fds, min(left_s, POLL_S))
                if reply_fd in ready:
                    reply: object = json.loads(self._connection.recv_bytes())
                    self._drain(output)
                    return reply, _text(output)
                if ready:
                    self._drain(output)
                # what the user's code forked may hold the socket open
                if self._process.poll() is not None:
                    raise EOFError
        except (OSError, EOFError):
            self._drain(output)
            raise LostWorkerError("crash", self._end(), _text(output)) from None

    def _drain(self, output: bytearray) -> None:
        """Read what the worker has printed so far; keep the beginning."""
        with suppress(BlockingIOError):
            while chunk := os.read(self._stdout.fileno(), 1 << 16):
                if len(output) < MAX_OUTPUT:
                    output += chunk[: MAX_OUTPUT - len(output)]
                    if len(output) == MAX_OUTPUT:
                        output += CUT
            self._prints = False  # the user's code closed it

    def _end(self) -> str:
        """The way in which the process ended, in words."""
        try:
            code = self._process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            return "the process closed its connection"
        if code >= 0:
            return f"the process ended itself with exit code {code}"
        return f"the process was ended by signal {-code} ({signal.Signals(-code).name})"


class RewardPool(WorkerSlots[RewardProcess]):
    """Up to `file.workers` workers, started when needed and replaced when they end.

    It may be used from any thread.
    """

    def __init__(self, file: RewardFile) -> None:
        super().__init__(file.workers)
        self.file = file
        self._busy: set[RewardProcess] = set()

    def load(self) -> bool:
        """Load the file in a worker; return whether the function is async.

        Raises UserError if the file cannot be loaded or defines no such function.
        """
        slot = self._slots.get()
        try:
            slot = slot or RewardProcess(self.file)
            return slot.concurrent
        finally:
            self._slots.put(slot)

    def score(self, calls: Sequence[Call], *, stop_at_failure: bool) -> list[Outcome | None]:
        """Call the function.

        Args:
            calls: the arguments of each call.
            stop_at_failure: after a failure, make no further calls.

        Returns:
            The outcome of each call, in order; None for calls that were not made.

        Raises:
            UserError: the file cannot be loaded.
        """
        if not calls:
            return []
        size = 1
        if self.load():
            size = min(MAX_CONCURRENT, -(-len(calls) // self.file.workers))
        parts = [calls[start : start + size] for start in range(0, len(calls), size)]
        stop = threading.Event()

        def outcomes(part: Sequence[Call]) -> list[Outcome | None]:
            results = self._call(part, stop)
            if stop_at_failure and any(result and result.failure for result in results):
                stop.set()
            return results

        with ThreadPoolExecutor(min(self.file.workers, len(parts))) as threads:
            try:
                return [outcome for part in threads.map(outcomes, parts) for outcome in part]
            except BaseException:
                # somebody wants to end the run now, not after the calls that are running
                stop.set()
                for worker in list(self._busy):
                    worker.interrupt()
                raise

    def _call(self, calls: Sequence[Call], stop: threading.Event) -> list[Outcome | None]:
        """Make calls in one worker; none after `stop`."""
        slot = self._slots.get()
        try:
            if stop.is_set():
                return [None] * len(calls)
            slot = slot or RewardProcess(self.file)
            self._busy.add(slot)
            try:
                return list(slot.call(calls))
            finally:
                self._busy.discard(slot)
        except LostWorkerError as dead:
            assert slot is not None, "only a worker that was started raises this"
            slot.kill()
            slot = None
            if len(calls) == 1:
                return [_failed(self.file, dead.failure, dead.reason, dead.output)]
        finally:
            self._slots.put(slot)
        # one of several calls ended the worker: each alone tells which
        return [outcome for call in calls for outcome in self._call([call], stop)]


def _failed(file: RewardFile, failure: Failure, reason: str, output: str) -> Outcome:
    where = f"{file.path}, function {file.function!r}"
    return Outcome(failure=failure, message=f"{where}: {reason}", output=output)


def _too_slow(limit_s: float) -> str:
    return f"did not return within {limit_s:g} s"


def _text(output: bytearray) -> str:
    return output.decode(errors="replace")
