"""Groups of actors spoken to as a learner, a sampler and a grader: what the loop sees of a cluster."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import cast

import ray
from jaxtyping import Float
from torch import Tensor

from reasontrain.algo.objectives import Objective
from reasontrain.cluster.group import ActorGroup
from reasontrain.data.sampling import Sampling
from reasontrain.learner import LossAggregationFn
from reasontrain.learner.distributed import RankAddress
from reasontrain.run.directory import step_of
from reasontrain.sampler import Sampler
from reasontrain.tasks.grading import Grader, Verdict
from reasontrain.types import Batch, LostError, Prompt, Rollout, RunError, Stats, Weights

logger = logging.getLogger(__name__)

Answer = tuple[int, list[Rollout]]
NOWHERE = -1
"""The version of ranks of which one failed within a step, and the others may wait for it still:
nothing can be saved.
"""


@dataclass
class Restarts:
    """How many deaths a run still survives, over all roles; `end` is what is said when there are
    none left.
    """

    left: int
    end: str = (
        "no restart is left (cluster.max_restarts); the same command goes on from the last "
        "checkpoint"
    )

    def take(self, error: LostError) -> None:
        """Use one up, or give in."""
        if self.left == 0:
            raise RunError(f"{error}\n{self.end}") from error
        self.left -= 1
        logger.warning(f"{error}\nstarting it again ({self.left} restarts left)")

    def replace(self, group: ActorGroup, error: LostError) -> None:
        """A new process in place of the one that died; one that dies while it starts is replaced
        again.
        """
        while True:
            self.take(error)
            try:
                return group.restart([error.rank])
            except LostError as again:
                error = again


class LearnerGroup:
    """All ranks of the learner: the same call on each, the answer of rank 0."""

    def __init__(self, group: ActorGroup, teachers: ActorGroup | None) -> None:
        self.group, self.teachers, self.steps_done, self.generation = group, teachers, 0, 0

    def build(self) -> None:
        """Let the ranks find each other and load their models."""
        host = self.host()
        address = cast(str, self._first("address", host))
        teachers = self.teachers.actors if self.teachers else []
        number = len(self.group.actors)
        self.group.each(
            "build",
            [
                (
                    RankAddress(rank, number, address, self.group.deadline_s),
                    teachers[rank % len(teachers)] if teachers else None,
                )
                for rank in range(number)
            ],
        )

    def rebuild(self) -> None:
        """All ranks anew: one that lost a peer is of no use. Teachers that died are started again."""
        if self.teachers:
            self.teachers.restart(
                [
                    rank
                    for rank in range(len(self.teachers.actors))
                    if not self.teachers.is_alive(rank)
                ]
            )
        self.group.restart(range(len(self.group.actors)))
        self.generation += 1
        self.build()

    def observe(self, batch: Batch, required_evidence: frozenset[str]) -> Batch:
        """See `Learner`."""
        return cast(Batch, self._together("observe", ray.put(batch), required_evidence))

    def step(
        self,
        batch: Batch,
        weight_BT: Float[Tensor, "B T"],
        objective: Objective,
        loss_aggregation: LossAggregationFn,
    ) -> Stats:
        """See `Learner`."""
        stats = cast(
            Stats,
            self._together("step", ray.put(batch), ray.put(weight_BT), objective, loss_aggregation),
        )
        self.steps_done += 1
        return stats

    def matrix_rate(self) -> float:
        """See `Learner`."""
        return cast(float, self._together("matrix_rate"))

    def weights(self) -> Weights:
        """The version alone: the weights themselves go from process to process."""
        return Weights(version=self.steps_done, tensors=self._not_here)

    def save(self, directory: Path) -> None:
        """See `Learner`; every rank writes its part."""
        self.group.all("save", directory.absolute())

    def restore(self, directory: Path) -> None:
        """See `Learner`."""
        self.group.all("restore", directory.absolute())
        self.steps_done = step_of(directory)

    def export(self, directory: Path) -> None:
        """See `Learner`."""
        self.group.all("export", directory.absolute())

    def _first(self, method: str, *arguments: object) -> object:
        return self.group.wait([getattr(self.group.actors[0], method).remote(*arguments)], [0])[0]

    def host(self, *others: ActorGroup) -> str:
        """Where rank 0 is reached by the other ranks, and by other groups: loopback where all are
        on one machine.
        """
        hosts = {about["host"] for group in (self.group, *others) for about in group.about}
        return "127.0.0.1" if len(hosts) == 1 else self.group.about[0]["address"]

    def _together(self, method: str, *arguments: object) -> object:
        """Rank 0's answer to a call in which ranks wait for each other, and for their teachers."""
        try:
            return self.group.all(method, *arguments)[0]
        except LostError:
            if self.teachers:
                self.teachers.check()  # a rank that lost its teacher says less about it
            raise
        except RunError:
            if len(self.group.actors) > 1:
                self.steps_done = NOWHERE
            raise

    def _not_here(self) -> Iterator[tuple[str, Tensor]]:
        raise AssertionError("the weights of a cluster's learner do not come to the driver")


class SamplerGroup:
    """Samplers side by side, each with a part of the prompts: the learner's own ranks, or processes
    of their own.
    """

    def __init__(self, group: ActorGroup) -> None:
        self.group, self.version = group, 0

    def sample(
        self, prompts: Sequence[Prompt], sampling: Sampling, *, num: int, first_id: int
    ) -> list[Rollout]:
        """See `Sampler`; part r of the prompts goes to process r."""
        return self.collect(self.begin(prompts, sampling, num=num, first_id=first_id))

    def begin(
        self, prompts: Sequence[Prompt], sampling: Sampling, *, num: int, first_id: int
    ) -> list[ray.ObjectRef]:
        """Ask for rollouts by the weights as they are now."""
        return self.group.submit("sample", self._parts(prompts, sampling, num, first_id))

    def collect(self, refs: Sequence[ray.ObjectRef]) -> list[Rollout]:
        """The rollouts of all processes, in order."""
        return [rollout for answer in self.group.wait(refs) for rollout in cast(Answer, answer)[1]]

    def load(self, weights: Weights) -> None:
        """The ranks sample with what they train; only the version is new."""
        self.group.all("load")
        self.version = weights.version

    def _parts(
        self, prompts: Sequence[Prompt], sampling: Sampling, num: int, first_id: int
    ) -> list[tuple[object, ...]]:
        number = len(self.group.actors)
        bounds = [len(prompts) * part // number for part in range(number + 1)]
        return [(prompts[a:b], sampling, num, first_id + a * num) for a, b in pairwise(bounds)]


class SeparateSamplers(SamplerGroup):
    """Samplers with weights of their own, sent by learner rank 0; one that dies is started again
    and asked again.
    """

    def __init__(
        self,
        group: ActorGroup,
        learners: LearnerGroup,
        restarts: Restarts,
        canary: Callable[[Sampler], None] | None,
    ) -> None:
        """`canary` looks at the sampler after each load, and raises where it is not what the
        learner is.
        """
        super().__init__(group)
        self.learners, self.restarts, self.canary = learners, restarts, canary
        self._line_of: int | None = None  # the generation of learners that it leads from

    def sample(
        self, prompts: Sequence[Prompt], sampling: Sampling, *, num: int, first_id: int
    ) -> list[Rollout]:
        """See `Sampler`."""
        parts = self._parts(prompts, sampling, num, first_id)
        found: list[list[Rollout] | None] = [None] * len(parts)
        while None in found:
            missing = [rank for rank, rollouts in enumerate(found) if rollouts is None]
            refs = {rank: self.group.actors[rank].sample.remote(*parts[rank]) for rank in missing}
            for rank, ref in refs.items():
                try:
                    version, found[rank] = cast(Answer, self.group.wait([ref], [rank])[0])
                    assert version == self.version, (
                        f"sampler {rank} has weights {version}, not {self.version}"
                    )
                except LostError as error:
                    self.revive(error)
        return [rollout for rollouts in found if rollouts is not None for rollout in rollouts]

    def revive(self, error: LostError) -> None:
        """A new process in place of one that died, with the weights of now."""
        self._replace(error)
        self._send()

    def _replace(self, error: LostError) -> None:
        self.restarts.replace(self.group, error)
        self._line_of = None

    def load(self, weights: Weights) -> None:
        """Send the learner's weights to every sampler, compare what arrived with what was sent, and
        look at one rollout.
        """
        self.version = weights.version
        self._send()
        if self.canary is not None:
            self.canary(self)

    def _send(self) -> None:
        while True:
            try:
                if self._line_of != self.learners.generation:
                    self._open()
                sending = self.learners.group.submit("send", [()] * len(self.learners.group.actors))
                got = self.group.all("receive", self.version, self.slots)
                sent = self.learners.group.wait(sending)[0]
            except LostError as error:
                if error.role != self.group.role:
                    raise
                self._replace(error)
                continue
            if any(receipt != sent for receipt in got):
                raise RunError(
                    f"weights changed on their way to the samplers: sent {sent}, arrived {got}"
                )
            return

    def _open(self) -> None:
        """A new line from rank 0 to all samplers."""
        learners, size, host = (
            self.learners,
            1 + len(self.group.actors),
            self.learners.host(self.group),
        )
        self.slots = ray.put(learners.group.all("slots")[0])
        timeout_s = self.group.heartbeat_s
        port = learners.group.wait(
            [learners.group.actors[0].listen.remote(host, size - 1, timeout_s)], [0]
        )[0]
        self.group.each(
            "connect", [(host, port, 1 + rank, size, timeout_s) for rank in range(size - 1)]
        )
        self._line_of = learners.generation


class GraderGroup(Grader):
    """Graders side by side; one that dies is started again and asked again."""

    def __init__(self, group: ActorGroup, restarts: Restarts) -> None:
        super().__init__()
        self.group, self.restarts = group, restarts

    def grade_many(
        self, pairs: Iterable[tuple[str, str]], *, last_number: bool = True
    ) -> list[Verdict]:
        """See `Grader`."""
        pairs = list(pairs)
        number = len(self.group.actors)
        parts = [pairs[rank::number] for rank in range(number)]
        refs = self.group.submit("grade_many", [(part, last_number) for part in parts])
        found = [
            self._graded(rank, ref, (parts[rank], last_number)) for rank, ref in enumerate(refs)
        ]
        return [found[index % number][index // number] for index in range(len(pairs))]

    def _graded(
        self, rank: int, ref: ray.ObjectRef, asked: tuple[Sequence[tuple[str, str]], bool]
    ) -> list[Verdict]:
        while True:
            try:
                return cast("list[Verdict]", self.group.wait([ref], [rank])[0])
            except LostError as error:
                self.restarts.replace(self.group, error)
                ref = self.group.actors[rank].grade_many.remote(*asked)
