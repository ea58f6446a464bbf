"""A suite's parts sampled by processes side by side: whoever is free takes the next one, so that
the report is one process's.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import ray

from reasontrain.cluster import placement
from reasontrain.cluster.actors import SamplingWorker
from reasontrain.cluster.group import ActorGroup
from reasontrain.cluster.roles import Answer, Restarts
from reasontrain.evaluation.candidate import Candidate
from reasontrain.evaluation.generation import PromptChunk, Sample
from reasontrain.recipe import Cluster, VllmEngine
from reasontrain.types import LostError, Rollout

RESTARTS = 3
END = (
    "no worker is started again after this one; what was answered is kept, and the same "
    "command goes on"
)


class EvaluationWorker(SamplingWorker):
    """A candidate with weights of its own."""

    def __init__(self, log: Path, candidate: Candidate, seed: int) -> None:
        super().__init__(log)
        self.sampler = candidate.sampler(seed)


@contextmanager
def side_by_side(candidate: Candidate, *, seed: int, workers: int, logs: Path) -> Iterator[Sample]:
    """`workers` processes that sample; they end with the block.

    A CPU each, and GPUs where the cluster has any.

    They join the cluster at RAY_ADDRESS, or one of this machine. Bits are those of one process
    where each computes with as many threads: on CPUs Ray gives every worker one.
    """
    with placement.connected(float(workers)):
        gpus = float(
            candidate.engine.tensor_parallel_size if isinstance(candidate.engine, VllmEngine) else 1
        )
        gpu = placement.uses_gpus(candidate.settings)
        wanted = [
            placement.ResourceRequest(
                "sampler", workers, 1.0, gpus if gpu else 0.0, "lower --workers"
            )
        ]
        placement.check_room(wanted)
        placement.check_versions()
        with placement.placed(wanted, "pack") as slots:
            limits = Cluster()
            group = ActorGroup(
                "sampler",
                EvaluationWorker,
                slots["sampler"],
                logs.absolute(),
                deadline_s=limits.deadline_s,
                heartbeat_s=limits.heartbeat_s,
            )
            group.start(candidate, seed)
            yield lambda asked: WorkQueue(group, Restarts(RESTARTS, END)).of(asked)


class WorkQueue:
    """Who samples what, until everything is sampled; a part whose process died goes to whoever is
    free.
    """

    def __init__(self, group: ActorGroup, restarts: Restarts) -> None:
        self.group, self.restarts = group, restarts
        self.idle = list(range(len(group.actors)))
        self.busy: dict[ray.ObjectRef, tuple[int, PromptChunk]] = {}
        self.waiting: deque[PromptChunk] = deque()

    def of(self, asked: Sequence[PromptChunk]) -> Iterator[tuple[PromptChunk, Sequence[Rollout]]]:
        """See `evaluation.asking.Sample`; parts come as they are done."""
        self.waiting.extend(asked)
        beat = time.monotonic()
        while self._begin():
            ready = self.group.ready(list(self.busy))
            for ref in ready:
                found = self._taken(ref)
                if found is not None:
                    self._begin()  # nobody waits while answers are graded
                    yield found
            if ready:
                beat = time.monotonic()
            elif time.monotonic() - beat > self.group.heartbeat_s:
                self._check()
                beat = time.monotonic()

    def _begin(self) -> bool:
        """Give parts to those who are free; whether anything is under way."""
        while self.waiting and self.idle:
            rank, part = self.idle.pop(0), self.waiting.popleft()
            ref = self.group.actors[rank].sample.remote(
                part.prompts, part.sampling, part.num, part.first_id
            )
            self.busy[ref] = rank, part
        return bool(self.busy)

    def _taken(self, ref: ray.ObjectRef) -> tuple[PromptChunk, Sequence[Rollout]] | None:
        """A part that is done, or None where its process died over it."""
        rank, part = self.busy[ref]
        try:
            _, rollouts = cast(Answer, self.group.wait([ref], [rank])[0])
        except LostError as error:
            self._replace(error)
            return None
        del self.busy[ref]
        self.idle.append(rank)
        return part, rollouts

    def _check(self) -> None:
        """Look for processes that are silent."""
        try:
            self.group.check()
        except LostError as error:
            self._replace(error)

    def _replace(self, error: LostError) -> None:
        """A new process for one that died; its part is the next to be given away."""
        for ref, (rank, part) in list(self.busy.items()):
            if rank == error.rank:
                del self.busy[ref]
                self.waiting.appendleft(part)
                self.idle.append(rank)
        self.restarts.replace(self.group, error)
