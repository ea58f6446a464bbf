"""Signals to stop: acknowledged within a second, and obeyed within a limit.

Schedulers warn by SIGTERM or SIGUSR1 some time before they kill a job.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Literal

logger = logging.getLogger(__name__)

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
STUCK_S = 10.0
"""Seconds after which a process ends that does not react to a request to stop at once."""
CLEANUP_S = 60.0
"""Seconds that cleaning up may take after such a request."""

Phase = Literal["working", "finishing", "interrupting", "cleaning"]


class StopNow(KeyboardInterrupt):
    """Raised in the main thread where work can stop at any moment, and at a second signal."""


class Stop:
    """Notes Ctrl-C, SIGTERM and SIGUSR1.

    With `limit_s`, the work under way (a step) may end first, within so many seconds; without, and
    in a block `at_once`, `StopNow` is raised immediately. A second signal always raises it. A
    process that does not react, as in a call that never returns, is ended.
    """

    def __init__(self, *, limit_s: float | None = None, limit_key: str = "") -> None:
        self.signal: signal.Signals | None = None
        self._limit_s = limit_s
        self._limit_key = limit_key
        self._at_once = limit_s is None
        self._raised = False

    @contextmanager
    def listening(self) -> Iterator[Stop]:
        """Handle these signals within the block; only Python's main thread can."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        receiver, sender = socket.socketpair()
        sender.setblocking(False)
        # Handlers run in the main thread, between two bytecodes: not while it is in a long call.
        # The wake-up descriptor is written by the C handler, so that another thread can answer.
        watcher = threading.Thread(target=self._watch, args=(receiver,), daemon=True, name="stop")
        before = {number: signal.signal(number, self._note) for number in SIGNALS}
        wakeup = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
        watcher.start()
        try:
            yield self
        finally:
            signal.set_wakeup_fd(wakeup)
            for number, handler in before.items():
                signal.signal(number, handler)
            sender.close()
            watcher.join()
            receiver.close()

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """A block that a first signal leaves at once, also one that came before it."""
        before = self._at_once
        self._at_once = True
        try:
            if self.signal is not None:
                self._raise()
            yield
        finally:
            self._at_once = before

    def _note(self, number: int, frame: FrameType | None) -> None:
        # Raising in the middle of a step would leave the learner between two updates or a
        # checkpoint half written, so the first signal is only noted there.
        first = self.signal is None
        if first:
            self.signal = signal.Signals(number)
        if self._at_once or not first:
            self._raise()

    def _raise(self) -> None:
        assert self.signal is not None, "there was a signal"
        self._raised = True
        raise StopNow(f"stopped by {self.signal.name}; the same command resumes")

    def _watch(self, receiver: socket.socket) -> None:
        """Answer signals until the other end is closed, and end a process that does not react."""
        phase: Phase = "working"
        limit_s: float | None = None
        while True:
            receiver.settimeout(limit_s)
            try:
                content = receiver.recv(64)
            except TimeoutError:
                phase, limit_s = self._enforce(phase)
                continue
            if not content:
                return
            for number in content:
                if number in SIGNALS and phase in ("working", "finishing"):
                    phase, limit_s = self._answer(signal.Signals(number), phase)

    def _answer(self, number: signal.Signals, phase: Phase) -> tuple[Phase, float]:
        """Log the answer to a signal; return the next phase and its limit in seconds."""
        # `_raised`: the main thread may have left the block `at_once` already, by this signal.
        at_once = self._at_once or self._raised
        if phase == "working" and self._limit_s is not None and not at_once:
            logger.warning(
                f"{number.name}: stopping after this step; a second signal stops at once "
                f"(so does {self._limit_key}, after {self._limit_s:g} s)"
            )
            return "finishing", self._limit_s
        logger.warning(f"{number.name}: stopping at once")
        return "interrupting", STUCK_S

    def _enforce(self, phase: Phase) -> tuple[Phase, float]:
        """Act at the end of a phase's limit; return the next phase and its limit in seconds."""
        if phase == "finishing":
            logger.warning(
                f"the step did not end within {self._limit_s:g} s ({self._limit_key}); stopping "
                f"with the last checkpoint"
            )
            # A real signal, because only that interrupts a call that blocks.
            signal.pthread_kill(_main_thread(), signal.SIGTERM)
            return "interrupting", STUCK_S
        if phase == "interrupting" and self._raised:
            return "cleaning", CLEANUP_S
        logger.error("the process does not react and is ended; the same command resumes")
        logging.shutdown()
        os._exit(1)


def _main_thread() -> int:
    ident = threading.main_thread().ident
    assert ident is not None, "the main thread has started"
    return ident
