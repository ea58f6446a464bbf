"""Groups without Ray: actors are plain objects, a call is made when it is submitted, and its answer
waits under a reference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import ray

from reasontrain.cluster.group import ActorGroup
from reasontrain.types import LostError, RunError


@dataclass
class Call:
    """A method that is called as Ray's are; it may raise, and so may waiting for it."""

    method: Callable[..., object]
    answers: dict[ray.ObjectRef, Callable[[], object]]

    def remote(self, *arguments: object) -> ray.ObjectRef:
        ref = ray.ObjectRef.from_random()
        try:
            answer = self.method(*arguments)
        except RunError as error:
            self.answers[ref] = _raising(error)
        else:
            self.answers[ref] = lambda: answer
        return ref


class Actor:
    """A worker with Ray's way of being called."""

    def __init__(self, worker: object, answers: dict[ray.ObjectRef, Callable[[], object]]) -> None:
        self.worker, self.answers = worker, answers

    def __getattr__(self, name: str) -> Call:
        return Call(getattr(self.worker, name), self.answers)


class FakeGroup(ActorGroup):
    """`make` gives the worker of a rank; one that is restarted is made anew."""

    def __init__(
        self, role: str, number: int, make: Callable[[int], object], logs: Path = Path("nowhere")
    ) -> None:
        self.role, self.logs, self.make = role, logs, make
        self.deadline_s = self.heartbeat_s = 5.0
        self.answers: dict[ray.ObjectRef, Callable[[], object]] = {}
        self.actors = [Actor(make(rank), self.answers) for rank in range(number)]
        self.about = [
            {"host": "here", "address": "10.0.0.1", "pid": str(rank)} for rank in range(number)
        ]
        self.dead: set[int] = set()
        self.restarted: list[int] = []
        self.still_births = 0  # so many of those that are started again die while they start

    def wait(
        self,
        refs: Sequence[ray.ObjectRef],
        ranks: Sequence[int] | None = None,
        *,
        starting: bool = False,
    ) -> list[object]:
        return [self.answers[ref]() for ref in refs]

    def ready(self, refs: Sequence[ray.ObjectRef]) -> Sequence[ray.ObjectRef]:
        return refs[-1:]  # who began last is done first

    def restart(self, ranks: Sequence[int]) -> None:
        for rank in ranks:
            if self.still_births:
                self.still_births -= 1
                raise LostError(self.role, rank, f"{self.role} {rank} was killed while it started")
            self.actors[rank] = Actor(self.make(rank), self.answers)
            self.dead.discard(rank)
            self.restarted.append(rank)

    def is_alive(self, rank: int) -> bool:
        return rank not in self.dead

    def check(self) -> None:
        for rank in self.dead:
            raise LostError(self.role, rank, f"{self.role} {rank} was killed")


def _raising(error: RunError) -> Callable[[], object]:
    def answer() -> object:
        raise error

    return answer
