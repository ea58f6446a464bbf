"""A recipe's processes started, and all that the loop needs of them."""

from __future__ import annotations

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
from reasontrain.cluster.canary import Canary
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
from reasontrain.recipe import Cluster, Recipe
from reasontrain.run import checkpoint
from reasontrain.run.directory import RunDirectory
from reasontrain.sampler import Sampler
from reasontrain.tasks.grading import Grader
from reasontrain.types import LostError, Prompt, UserError


@dataclass
class Processes:
    """The groups of a running recipe; `grader` is the driver's own where the recipe has no graders."""

    directory: RunDirectory
    learner: LearnerGroup
    answerer: SamplerGroup
    ahead: PrefetchingSampler | None
    grader: Grader
    restarts: Restarts
    gpu: bool

    def recover(self, error: LostError) -> int:
        """All learner ranks anew, from the newest complete checkpoint or from the start; the step
        to go on from.
        """
        if error.role not in ("learner", "teacher"):
            raise error
        while True:
            self.restarts.take(error)
            try:
                self.learner.rebuild()
                found = checkpoint.newest(self.directory)
                self.learner.steps_done = 0
                if found is not None:
                    self.learner.restore(found[1])
                self.answerer.load(self.learner.weights())
            except LostError as again:
                error = again
                continue
            return self.learner.steps_done

    @property
    def groups(self) -> list[ActorGroup]:
        """Those that work in every step."""
        grader = [self.grader.group] if isinstance(self.grader, GraderGroup) else []
        return [self.learner.group, self.answerer.group, *grader]

    @property
    def sampler(self) -> Sampler:
        """Who gives the rollouts of a step: who answers, or who answers ahead."""
        return self.ahead or self.answerer


@contextmanager
def running(
    recipe: Recipe, cluster: Cluster, directory: RunDirectory, order: Order, grader: Grader
) -> Iterator[Processes]:
    """Check the cluster against the recipe, start every process, and end them with the block."""
    with placement.connected(
        sum(need.number * need.cpus for need in placement.needs(recipe, cluster, gpu=False))
    ):
        gpu = placement.uses_gpus(recipe.model)
        wanted = placement.needs(recipe, cluster, gpu=gpu)
        placement.check_engine(recipe, gpu=gpu)
        placement.check_room(wanted)
        placement.check_versions()
        with placement.placed(wanted, cluster.placement) as slots:
            parts = recipe, cluster, directory, order, grader
            processes = _started(*parts, slots, gpu=gpu)
            yield processes
            with suppress(LostError):  # everything is written by now
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
        made = ActorGroup(
            role,
            cls,
            slots[role],
            logs,
            deadline_s=cluster.deadline_s,
            heartbeat_s=cluster.heartbeat_s,
        )
        made.start(*arguments)
        return made

    assert order.prompts, "there is something to ask"
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
        return Processes(directory, learner, SamplerGroup(ranks), None, grader, restarts, gpu)
    temperature = recipe.temperature or 1.0
    canary = Canary(
        learner, order.prompts[0], temperature, cluster.canary_every, cluster.canary_gap
    )
    separate = SeparateSamplers(samplers, learner, restarts, canary)
    ahead = (
        PrefetchingSampler(separate, lambda first_id: _after(recipe, order, first_id))
        if cluster.overlap
        else None
    )
    return Processes(directory, learner, separate, ahead, grader, restarts, gpu)


def _after(recipe: Recipe, order: Order, first_id: int) -> tuple[Sequence[Prompt], int] | None:
    """What the step after the one with this first rollout asks."""
    step = first_id // recipe.learn.rollouts_per_step + 1
    return (order.at(step), step * recipe.learn.rollouts_per_step) if step < recipe.steps else None


def _check_shared(ranks: ActorGroup, directory: RunDirectory) -> None:
    """Every rank writes its part of a checkpoint where this process can complete it; raises
    UserError where it cannot.
    """
    missing = [
        ranks.name(rank) for rank in range(len(ranks.actors)) if not ranks.log(rank).exists()
    ]
    if missing:
        raise UserError(
            f"{directory} is another folder for {', '.join(missing)}: checkpoints need an "
            f"`out` on a disk that all nodes share"
        )
