"""Algebra's worker processes, handed from one grader to the next within a test session.

A worker imports for more than a second of CPU before it answers, and every run, evaluation and
stage starts workers of its own. Tests of anything but the workers themselves share them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from reasontrain.tasks.grading import symbolic
from reasontrain.tasks.grading.symbolic import GraderProcess, Pool


class IdleWorkers:
    """Workers of pools that were closed, by their limit of memory."""

    def __init__(self) -> None:
        self._workers: defaultdict[int, list[GraderProcess]] = defaultdict(list)

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Pools begin with these workers, and leave theirs here instead of ending them."""
        with (
            patch.object(symbolic, "GraderProcess", self._take),
            patch.object(Pool, "close", lambda pool: self._keep(pool)),
        ):
            yield

    def end(self) -> None:
        """End them all."""
        for workers in self._workers.values():
            for worker in workers:
                worker.kill()

    def _take(self, *, memory_bytes: int) -> GraderProcess:
        try:
            return self._workers[memory_bytes].pop()
        except IndexError:
            return GraderProcess(memory_bytes=memory_bytes)

    def _keep(self, pool: Pool) -> None:
        with pool._closing:
            for worker in [pool._slots.get() for _ in range(pool._num_slots)]:
                if worker is not None:
                    self._workers[pool._memory_bytes].append(worker)
                pool._slots.put(None)
