"""Parallel evaluation: idle workers take the next chunk of a suite.

Chunks do not depend on the number of workers, so the report equals that of a single process.
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
from reasontrain.evaluation.generation import PromptChunk, SampleFn
from reasontrain.recipe import Cluster
from reasontrain.types import LostError, Rollout

RESTARTS = 3
END = "no restart is left; existing answers are kept, and the same command resumes"


class EvaluationWorker(SamplingWorker):
    """A worker with its own copy of the candidate's weights."""

    def __init__(self, log: Path, candidate: Candidate, seed: int) -> None:
        super().__init__(log)
        self.sampler = candidate.sampler(seed)


@contextmanager
def parallel_sampler(
    candidate: Candidate, *, seed: int, workers: int, logs: Path
) -> Iterator[SampleFn]:
    """Start worker processes that end with the block; yield the function that samples with them.

    They join the cluster at RAY_ADDRESS, or a local one. Results equal those of one process bit for
    bit if it uses as many threads; on CPUs Ray gives every worker one thread.

    Args:
        candidate: The model.
        seed: Seed of sampling.
        workers: Number of processes; each takes one CPU, and GPUs if the cluster has any.
        logs: The folder of log files.
    """
    with placement.connected(float(workers)):
        gpus = float(candidate.engine.num_gpus)
        gpu = placement.uses_gpus(candidate.settings)
        wanted = [
            placement.ResourceRequest(
                "sampler", workers, 1.0, gpus if gpu else 0.0, "lower --workers"
            )
        ]
        placement.check_room(wanted)
        placement.check_versions(candidate.engine)
        limits = Cluster()
        with placement.placed(wanted, limits.placement, wait_s=limits.wait_s) as slots:
            group = ActorGroup(
                "sampler",
                EvaluationWorker,
                slots["sampler"],
                logs.absolute(),
                deadline_s=limits.deadline_s,
                heartbeat_s=limits.heartbeat_s,
                exports_memory=not candidate.engine.capabilities.shares_policy,
            )
            group.start(candidate, seed)
            yield lambda chunks: WorkQueue(group, Restarts(RESTARTS, END)).sample(chunks)


class WorkQueue:
    """Assigns chunks to workers until all are sampled; a dead worker's chunk is assigned again."""

    def __init__(self, group: ActorGroup, restarts: Restarts) -> None:
        self.group = group
        self.restarts = restarts
        self.idle = list(range(len(group.actors)))
        self.busy: dict[ray.ObjectRef, tuple[int, PromptChunk]] = {}
        self.waiting: deque[PromptChunk] = deque()

    def sample(
        self, chunks: Sequence[PromptChunk]
    ) -> Iterator[tuple[PromptChunk, Sequence[Rollout]]]:
        """See `evaluation.generation.SampleFn`; chunks are yielded as they finish."""
        self.waiting.extend(chunks)
        beat = time.monotonic()
        while self._assign():
            ready = self.group.ready(list(self.busy))
            for ref in ready:
                result = self._result(ref)
                if result is not None:
                    self._assign()  # keeps workers busy while answers are graded
                    yield result
            if ready:
                beat = time.monotonic()
            elif time.monotonic() - beat > self.group.heartbeat_s:
                self._check()
                beat = time.monotonic()

    def _assign(self) -> bool:
        """Assign chunks to idle workers; False once nothing is left in progress."""
        while self.waiting and self.idle:
            rank = self.idle.pop(0)
            part = self.waiting.popleft()
            ref = self.group.actors[rank].sample.remote(
                part.prompts, part.sampling, part.num, part.first_id
            )
            self.busy[ref] = (rank, part)
        return bool(self.busy)

    def _result(self, ref: ray.ObjectRef) -> tuple[PromptChunk, Sequence[Rollout]] | None:
        """A finished chunk, or None if its worker died."""
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
        """Replace a worker that is dead or misses a heartbeat."""
        try:
            self.group.check()
        except LostError as error:
            self._replace(error)

    def _replace(self, error: LostError) -> None:
        """Replace a dead worker; its chunk is assigned next."""
        for ref, (rank, part) in list(self.busy.items()):
            if rank == error.rank:
                del self.busy[ref]
                self.waiting.appendleft(part)
                self.idle.append(rank)
        self.restarts.replace(self.group, error)
