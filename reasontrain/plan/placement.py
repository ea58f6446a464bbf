"""Placement of processes: the resource bundles requested from Ray, and the nodes they fill."""

from __future__ import annotations

import math
from dataclasses import dataclass

from reasontrain.plan.roles import PlannedJob

ROUNDING = 1e-6
"""Part of a GPU that is lost when fractions of it are added."""


@dataclass(frozen=True)
class PlacementGroup:
    """Processes of one role on one node, each with this bundle; `node` is None for any node."""

    role: str
    first: int
    processes: int
    cpus: float
    gpus: float
    node: int | None


def placement(job: PlannedJob) -> list[PlacementGroup]:
    """Placement groups: learners first, then samplers and teachers; graders on any node.

    `pack` takes the first node that has room, `spread` the emptiest. An engine with tensor
    parallelism has all its GPUs on one node.
    """
    cluster = job.cluster
    gpu = job.gpus_per_process
    engine = gpu * job.recipe.engine.num_gpus
    wanted = (
        [("learner", gpu)] * cluster.learners
        + [("sampler", engine)] * cluster.samplers
        + [("teacher", gpu)] * cluster.teachers
    )
    total = sum(gpus for _, gpus in wanted)
    used = [0.0] * math.ceil(total / job.machine.gpus_per_node - ROUNDING)
    groups: list[PlacementGroup] = []
    count: dict[str, int] = {}
    for name, gpus in wanted:
        node = _node(used, gpus, job) if gpu else None
        rank = count[name] = count.get(name, -1) + 1
        last = groups[-1] if groups else None
        if last is not None and (last.role, last.node) == (name, node):
            groups[-1] = PlacementGroup(
                name, last.first, last.processes + 1, cluster.reserved_cpus, gpus, node
            )
        else:
            groups.append(PlacementGroup(name, rank, 1, cluster.reserved_cpus, gpus, node))
    if cluster.graders:
        groups.append(
            PlacementGroup("grader", 0, cluster.graders, cluster.reserved_cpus, 0.0, None)
        )
    return groups


def _node(used: list[float], gpus: float, job: PlannedJob) -> int:
    """A node with that many free GPUs, recorded in `used`; a new node if no other has room."""
    most = job.machine.gpus_per_node + ROUNDING
    room = [node for node, busy in enumerate(used) if busy + gpus <= most]
    if not room:
        used.append(0.0)
        room = [len(used) - 1]
    node = room[0] if job.cluster.placement == "pack" else min(room, key=lambda node: used[node])
    used[node] += gpus
    return node
