"""Start and end a recipe's processes, and recover from their loss."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from reasontrain.cluster import placement
from reasontrain.cluster.actors import (
    GraderWorker,
    LearnerRank,
    SamplerWorker,
    TeacherWorker,
    Worker,
)
from reasontrain.cluster.canary import Canary, canary_of
from reasontrain.cluster.group import ActorGroup, Slot
from reasontrain.cluster.prefetch import PrefetchingSampler
from reasontrain.cluster.roles import (
    GraderGroup,
    LearnerGroup,
    Restarts,
    SamplerGroup,
    SeparateSamplers,
)
from reasontrain.data.order import Order
from reasontrain.metrics.timing import start_phase
from reasontrain.recipe import Cluster, Recipe
from reasontrain.run import checkpoint
from reasontrain.run.directory import RunDirectory
from reasontrain.sampler import Sampler
from reasontrain.tasks.grading import Grader
from reasontrain.types import LostError, Prompt, UserError

logger = logging.getLogger(__name__)


@dataclass
class Processes:
    """The groups of a running recipe; without grader processes, `grader` is the driver's.

    `canary` is None if the samplers use the learner's own weights.
    """

    directory: RunDirectory
    learner: LearnerGroup
    evaluation_sampler: SamplerGroup
    prefetching: PrefetchingSampler | None
    grader: Grader
    restarts: Restarts
    gpu: bool
    canary: Canary | None

    def recover(self, error: LostError) -> int:
        """Restart all learner ranks from the newest complete checkpoint, or from the start.

        Returns:
            The number of steps that the restored weights have been trained for.

        Raises:
            LostError: The lost process is not a learner or teacher.
            RunError: No restart is left.
        """
        if error.role not in ("learner", "teacher"):
            raise error
        while True:
            self.restarts.take(error)
            try:
                self.learner.rebuild()
                newest = checkpoint.newest(self.directory)
                step = 0
                self.learner.steps_done = 0
                if newest is not None:
                    step = newest[0]
                    self.learner.restore(newest[1])
                self.evaluation_sampler.load(self.learner.weights())
            except LostError as again:
                error = again
                continue
            return step

    @property
    def groups(self) -> list[ActorGroup]:
        """Groups that work in every step."""
        grader = [self.grader.group] if isinstance(self.grader, GraderGroup) else []
        return [self.learner.group, self.evaluation_sampler.group, *grader]

    @property
    def sampler(self) -> Sampler:
        """The sampler of training rollouts."""
        return self.prefetching or self.evaluation_sampler


@contextmanager
def running(
    recipe: Recipe, cluster: Cluster, directory: RunDirectory, order: Order, grader: Grader
) -> Iterator[Processes]:
    """Check the cluster's resources, start every process, and end them when the block ends.

    Args:
        recipe: The recipe.
        cluster: Its cluster settings.
        directory: The run directory; logs and checkpoints go there.
        order: The order of prompts.
        grader: The driver's grader, used if the recipe has no grader processes.

    Raises:
        UserError: The cluster lacks resources, its library versions differ, or it does not share
            the run directory.
    """
    with placement.connected(
        sum(need.number * need.cpus for need in placement.needs(recipe, cluster, gpu=False))
    ):
        gpu = placement.uses_gpus(recipe.model)
        wanted = placement.needs(recipe, cluster, gpu=gpu)
        placement.check_room(wanted)
        placement.check_versions(recipe.engine)
        with placement.placed(
            wanted, cluster.placement, wait_s=cluster.wait_s, share_cores=cluster.cpus is None
        ) as slots:
            parts = ", ".join(f"{need.number} {need.role}" for need in wanted)
            start_phase(logger, f"starting processes and loading models: {parts}")
            processes = _started(recipe, cluster, directory, order, grader, slots, gpu=gpu)
            yield processes
            with suppress(LostError):  # everything has been written by now
                for group in processes.groups:
                    group.note()
                processes.learner.group.all("leave")


def _started(
    recipe: Recipe,
    cluster: Cluster,
    directory: RunDirectory,
    order: Order,
    grader: Grader,
    slots: dict[str, list[Slot]],
    *,
    gpu: bool,
) -> Processes:
    def group(role: str, cls: type[Worker], *arguments: object) -> ActorGroup:
        logs = directory.logs.absolute()
        actors = ActorGroup(
            role,
            cls,
            slots[role],
            logs,
            deadline_s=cluster.deadline_s,
            heartbeat_s=cluster.heartbeat_s,
        )
        actors.start(*arguments)
        return actors

    assert order.prompts, "an empty task is refused before"
    restarts = Restarts(cluster.max_restarts)
    teachers = group("teacher", TeacherWorker, recipe) if cluster.teachers else None
    ranks = group("learner", LearnerRank, recipe)
    _check_shared(ranks, directory)
    learner = LearnerGroup(ranks, teachers)
    samplers = group("sampler", SamplerWorker, recipe) if cluster.samplers else None
    if cluster.graders:
        grader = GraderGroup(group("grader", GraderWorker), restarts)
    learner.build()
    if samplers is None:
        shared = SamplerGroup(ranks)
        canary = canary_of(recipe, directory, learner, shared)
        return Processes(directory, learner, shared, None, grader, restarts, gpu, canary)
    separate = SeparateSamplers(samplers, learner, restarts, transfer_s=cluster.transfer_s)
    canary = canary_of(recipe, directory, learner, separate)
    prefetching = (
        PrefetchingSampler(separate, lambda first_id: _after(recipe, order, first_id))
        if cluster.overlap
        else None
    )
    return Processes(directory, learner, separate, prefetching, grader, restarts, gpu, canary)


def _after(recipe: Recipe, order: Order, first_id: int) -> tuple[Sequence[Prompt], int] | None:
    """Prompts and first rollout id of the step after the one with this first rollout."""
    step = first_id // recipe.learn.rollouts_per_step + 1
    return (order.at(step), step * recipe.learn.rollouts_per_step) if step < recipe.steps else None


def _check_shared(ranks: ActorGroup, directory: RunDirectory) -> None:
    """Raise UserError if a rank does not share the run directory with this process.

    Each rank writes its shard of a checkpoint, and this process completes it.
    """
    missing = [
        ranks.name(rank) for rank in range(len(ranks.actors)) if not ranks.log(rank).exists()
    ]
    if missing:
        raise UserError(
            f"{directory} is another folder for {', '.join(missing)}: checkpoints need an "
            f"`out` on a disk that all nodes share"
        )
