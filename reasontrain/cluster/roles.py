"""Groups of actors that implement the interfaces of learner, sampler and grader."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TypeVar, cast

import ray
from jaxtyping import Float
from torch import Tensor

from reasontrain.algo.objectives import Objective
from reasontrain.cluster.group import ActorGroup
from reasontrain.cluster.weight_transfer import TransferAbortedError
from reasontrain.data.sampling import Sampling
from reasontrain.learner import LossAggregationFn
from reasontrain.learner.distributed import RankAddress
from reasontrain.run.directory import step_of
from reasontrain.tasks.grading import AnswerFormat, Grader, GradeRequest, Verdict
from reasontrain.tasks.own_reward import Call, Outcome, RewardFile
from reasontrain.types import Batch, LostError, Prompt, Rollout, RunError, Stats, Weights

logger = logging.getLogger(__name__)

Answer = tuple[int, list[Rollout]]
T = TypeVar("T")


@dataclass
class Restarts:
    """The number of restarts left, shared by all roles.

    `end` is the message when none is left.
    """

    left: int
    end: str = (
        "no restart is left (cluster.max_restarts); the same command goes on from the last "
        "checkpoint"
    )

    def take(self, error: LostError) -> None:
        """Use one restart, or raise RunError if none is left."""
        if self.left == 0:
            raise RunError(f"{error}\n{self.end}") from error
        self.left -= 1
        logger.warning(f"{error}\nrestarting it ({self.left} restarts left)")

    def replace(self, group: ActorGroup, error: LostError) -> None:
        """Replace a process that died; try again if the new one dies while it starts."""
        while True:
            self.take(error)
            try:
                return group.restart([error.rank])
            except LostError as again:
                error = again


class LearnerGroup:
    """All ranks of the learner: the same call on each, and the result of rank 0."""

    def __init__(self, group: ActorGroup, teachers: ActorGroup | None) -> None:
        self.group = group
        self.teachers = teachers
        self.steps_done: int | None = 0
        self.generation = 0

    def build(self) -> None:
        """Form the process group of all ranks, and load their models."""
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
        """Restart all ranks, and teachers that died.

        All ranks, because a rank that lost a peer cannot continue.
        """
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
        """Learn from a batch of rollouts (see `Learner`).

        Args:
            batch: the rollouts of all ranks.
            weight_BT: the selection's weight of each token.
            objective: the loss of a token, a response or a pair.
            loss_aggregation: divides the sum of losses by totals of an optimiser step.

        Returns:
            The statistics of the step on rank 0.
        """
        stats = cast(
            Stats,
            self._together("step", ray.put(batch), ray.put(weight_BT), objective, loss_aggregation),
        )
        assert self.steps_done is not None, "a step is taken from the weights of a step"
        self.steps_done += 1
        return stats

    def matrix_rate(self) -> float:
        """See `Learner`."""
        return cast(float, self._together("matrix_rate"))

    def attention(self) -> str:
        """See `Learner`."""
        return cast(str, self._together("attention"))

    def weights(self) -> Weights:
        """The version of the weights; the tensors are sent directly between processes."""
        assert self.steps_done is not None, "these weights are of no step"
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
        """The host at which ranks and groups reach rank 0; loopback if all are on one machine."""
        hosts = {about["host"] for group in (self.group, *others) for about in group.about}
        return "127.0.0.1" if len(hosts) == 1 else self.group.about[0]["address"]

    def _together(self, method: str, *arguments: object) -> object:
        """Call a collective method on all ranks, and return the result of rank 0."""
        try:
            return self.group.all(method, *arguments)[0]
        except LostError:
            if self.teachers:
                self.teachers.check()  # the teacher's error is more specific
            raise
        except RunError:
            # One rank failed within a step, and the others may still wait for it in a collective
            # operation: nothing can be saved. With a single rank, the step of its weights is known.
            single = len(self.group.actors) == 1
            self.steps_done = cast("int | None", self._first("steps_done")) if single else None
            raise

    def _not_here(self) -> Iterator[tuple[str, Tensor]]:
        raise AssertionError("the weights of a cluster's learner do not come to the driver")


class SamplerGroup:
    """Processes that share the prompts of a step: the learner's own ranks, or sampler processes."""

    def __init__(self, group: ActorGroup) -> None:
        self.group = group
        self.version = 0

    def sample(
        self, prompts: Sequence[Prompt], sampling: Sampling, *, num: int, first_id: int
    ) -> list[Rollout]:
        """Sample with all processes; process r gets the r-th contiguous part of the prompts.

        Args:
            prompts: The encoded prompts.
            sampling: Temperature, truncation and stop criteria.
            num: Rollouts per prompt.
            first_id: The id of the first rollout.

        Returns:
            `len(prompts) * num` rollouts, prompt by prompt.
        """
        return self.collect(self.begin(prompts, sampling, num=num, first_id=first_id))

    def begin(
        self, prompts: Sequence[Prompt], sampling: Sampling, *, num: int, first_id: int
    ) -> list[ray.ObjectRef]:
        """Start sampling with the current weights.

        Args:
            prompts: The encoded prompts.
            sampling: Temperature, truncation and stop criteria.
            num: Rollouts per prompt.
            first_id: The id of the first rollout.

        Returns:
            One reference per process, for `collect`.
        """
        return self.group.submit("sample", self._parts(prompts, sampling, num, first_id))

    def collect(self, refs: Sequence[ray.ObjectRef]) -> list[Rollout]:
        """The rollouts of all processes, in the order of the prompts."""
        return [rollout for answer in self.group.wait(refs) for rollout in cast(Answer, answer)[1]]

    def load(self, weights: Weights) -> None:
        """Load the weights of each rank into its own sampler."""
        self.group.all("load")
        self.version = weights.version

    def _parts(
        self, prompts: Sequence[Prompt], sampling: Sampling, num: int, first_id: int
    ) -> list[tuple[object, ...]]:
        number = len(self.group.actors)
        bounds = [len(prompts) * part // number for part in range(number + 1)]
        return [(prompts[a:b], sampling, num, first_id + a * num) for a, b in pairwise(bounds)]


class SeparateSamplers(SamplerGroup):
    """Samplers with their own copies of the weights, sent by learner rank 0.

    A sampler that dies is restarted, and its prompts are sampled again.
    """

    def __init__(
        self,
        group: ActorGroup,
        learners: LearnerGroup,
        restarts: Restarts,
        *,
        transfer_s: float,
    ) -> None:
        """Create the group.

        Args:
            group: The sampler processes.
            learners: The ranks that send the weights.
            restarts: The budget of restarts, shared by all roles.
            transfer_s: Limit until the samplers confirm a part of the weights, in seconds.
        """
        super().__init__(group)
        self.transfer_s = transfer_s
        self.learners = learners
        self.restarts = restarts
        # The generation of learners that the broadcast group was opened with; None without a group.
        self._connected_generation: int | None = None

    def sample(
        self, prompts: Sequence[Prompt], sampling: Sampling, *, num: int, first_id: int
    ) -> list[Rollout]:
        """Sample with all processes; a process that dies is restarted and samples its part again.

        Args:
            prompts: The encoded prompts.
            sampling: Temperature, truncation and stop criteria.
            num: Rollouts per prompt.
            first_id: The id of the first rollout.

        Returns:
            `len(prompts) * num` rollouts, prompt by prompt.

        Raises:
            RunError: No restart is left.
        """
        parts = self._parts(prompts, sampling, num, first_id)
        results: list[list[Rollout] | None] = [None] * len(parts)
        while None in results:
            missing = [rank for rank, rollouts in enumerate(results) if rollouts is None]
            refs = {rank: self.group.actors[rank].sample.remote(*parts[rank]) for rank in missing}
            for rank, ref in refs.items():
                try:
                    version, results[rank] = cast(Answer, self.group.wait([ref], [rank])[0])
                    assert version == self.version, (
                        f"sampler {rank} has weights {version}, not {self.version}"
                    )
                except LostError as error:
                    self.revive(error)
        return [rollout for rollouts in results if rollouts is not None for rollout in rollouts]

    def revive(self, error: LostError) -> None:
        """Replace a dead process and send the current weights."""
        self._replace(error)
        self._send()

    def _replace(self, error: LostError) -> None:
        self.restarts.replace(self.group, error)
        self._connected_generation = None

    def load(self, weights: Weights) -> None:
        """Send the learner's weights to every sampler, and verify the checksum."""
        self.version = weights.version
        self._send()

    def _send(self) -> None:
        while True:
            try:
                if self._connected_generation != self.learners.generation:
                    self._open()
                sent, *received = self._transfer()
            except LostError as error:
                if error.role != self.group.role:
                    raise
                self._replace(error)
                continue
            if any(checksum != sent for checksum in received):
                raise RunError(
                    f"weights changed on their way to the samplers: sent {sent}, arrived {received}"
                )
            return

    def _transfer(self) -> list[object]:
        """Send the weights once; return the checksums of learner rank 0 and of every sampler.

        Raises:
            LostError: A sampler died, or did not confirm in time; or a learner rank died.
            RunError: A sampler did not accept the weights.
        """
        learners = self.learners.group
        sending = learners.submit("send", [()] * len(learners.actors))
        receiving = self.group.submit(
            "receive", [(self.version, self.slots)] * len(self.group.actors)
        )
        calls = {ref: (learners, rank) for rank, ref in enumerate(sending)}
        calls |= {ref: (self.group, rank) for rank, ref in enumerate(receiving)}
        results: dict[ray.ObjectRef, object] = {}
        beat = time.monotonic()
        try:
            # Both sides at once: who dies first is seen first. The deadline is the sender's own,
            # which starts when every sampler has ended what it did before.
            while waiting := [ref for ref in calls if ref not in results]:
                for ref in self.group.ready(waiting):
                    group, rank = calls[ref]
                    results[ref] = group.wait([ref], [rank])[0]
                if time.monotonic() - beat > self.group.heartbeat_s:
                    learners.check()
                    self.group.check()
                    beat = time.monotonic()
        except RunError as error:
            verdict = self._stop_sending(sending)
            # A sampler is not to blame for a learner that died, or for a transfer given up.
            blamed = isinstance(verdict, LostError) and verdict.role == learners.role
            if verdict is not None and (blamed or isinstance(error, TransferAbortedError)):
                raise verdict from error
            raise
        return [results[ref] for ref in (sending[0], *receiving)]

    def _stop_sending(self, sending: Sequence[ray.ObjectRef]) -> RunError | None:
        """End a transfer, so that the learner is free for the next one; return its error."""
        learners = self.learners.group
        try:
            learners.wait([learners.actors[0].cancel_transfer.remote()], [0])
            learners.wait(sending)
        except RunError as error:
            return error
        return None

    def _open(self) -> None:
        """Open a broadcast group from rank 0 to all samplers.

        A group cannot outlive a member, so a new one is needed after every restart.
        """
        learners = self.learners
        size = 1 + len(self.group.actors)
        host = learners.host(self.group)
        self.slots = ray.put(learners.group.all("slots")[0])
        timeout_s = self.transfer_s
        port = learners.group.wait(
            [learners.group.actors[0].listen.remote(host, size - 1, timeout_s)], [0]
        )[0]
        self.group.each(
            "connect", [(host, port, 1 + rank, size, timeout_s) for rank in range(size - 1)]
        )
        self._connected_generation = learners.generation


class GraderGroup(Grader):
    """Graders that share the work; a grader that dies is restarted, and its part graded again."""

    def __init__(self, group: ActorGroup, restarts: Restarts) -> None:
        super().__init__()
        self.group = group
        self.restarts = restarts

    def grade_many(
        self, requests: Iterable[GradeRequest], *, answer_format: AnswerFormat = "marked"
    ) -> list[Verdict]:
        """See `Grader`."""
        requests = list(requests)
        verdicts = self._shared(requests, "grade_many", lambda part: (part, answer_format))
        return cast("list[Verdict]", verdicts)

    def own_rewards(
        self, file: RewardFile, calls: Sequence[Call], *, stop_at_failure: bool
    ) -> list[Outcome | None]:
        """See `Grader`; every grader has `file.workers` workers."""
        outcomes = self._shared(calls, "own_rewards", lambda part: (file, part, stop_at_failure))
        return cast("list[Outcome | None]", outcomes)

    def _shared(
        self,
        items: Sequence[T],
        method: str,
        arguments: Callable[[Sequence[T]], tuple[object, ...]],
    ) -> list[object]:
        """Call a method of all graders, each with its part of the items; results in their order."""
        number = len(self.group.actors)
        parts = [arguments(items[rank::number]) for rank in range(number)]
        refs = self.group.submit(method, parts)
        results = [self._result(rank, ref, method, parts[rank]) for rank, ref in enumerate(refs)]
        return [results[index % number][index // number] for index in range(len(items))]

    def _result(
        self, rank: int, ref: ray.ObjectRef, method: str, arguments: tuple[object, ...]
    ) -> list[object]:
        while True:
            try:
                return cast("list[object]", self.group.wait([ref], [rank])[0])
            except LostError as error:
                self.restarts.replace(self.group, error)
                ref = getattr(self.group.actors[rank], method).remote(*arguments)
