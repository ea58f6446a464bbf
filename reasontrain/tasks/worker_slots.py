"""Slots of worker processes, which the pools of graders and of own rewards share."""

from __future__ import annotations

import threading
from queue import LifoQueue
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar


class Worker(Protocol):
    """A process that can be killed."""

    def kill(self) -> None:
        """End the process now, and reap it."""
        ...


W = TypeVar("W", bound=Worker)


class WorkerSlots(Generic[W]):
    """Slots that hold a worker, or None where none was started or it has ended.

    A thread takes a slot, uses it alone and puts it back. The last one used is taken first.
    """

    def __init__(self, num_slots: int) -> None:
        self._num_slots = num_slots
        self._slots: LifoQueue[W | None] = LifoQueue()
        self._closing = threading.Lock()
        for _ in range(num_slots):
            self._slots.put(None)

    def close(self) -> None:
        """End every worker, after the calls that are running; the slots can be used again."""
        with self._closing:
            for worker in [self._slots.get() for _ in range(self._num_slots)]:
                if worker is not None:
                    worker.kill()
                self._slots.put(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
