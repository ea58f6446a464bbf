"""Which processes run where: the bundles that Ray is asked for, and the nodes that they fill."""

from __future__ import annotations

from dataclasses import dataclass

from reasontrain.plan.roles import Job


@dataclass(frozen=True)
class Group:
    """Processes of one role on one node, each with this bundle. `node` is None where any will do."""

    role: str
    first: int
    processes: int
    cpus: float
    gpus: int
    node: int | None


def placement(job: Job) -> list[Group]:
    """Learners first, then samplers and teachers, node by node (`pack`) or in turns (`spread`); graders go where cores are."""
    cluster, gpu = job.cluster, int(job.on_gpu)
    names = ["learner"] * cluster.learners + ["sampler"] * cluster.samplers + ["teacher"] * cluster.teachers
    per_node = job.machine.gpus_per_node
    num_nodes = -(-len(names) // per_node)
    found: list[Group] = []
    count: dict[str, int] = {}
    for index, name in enumerate(names):
        node = (index // per_node if cluster.placement == "pack" else index % num_nodes) if gpu else None
        rank = count[name] = count.get(name, -1) + 1
        last = found[-1] if found else None
        if last is not None and (last.role, last.node) == (name, node):
            found[-1] = Group(name, last.first, last.processes + 1, cluster.cpus, gpu, node)
        else:
            found.append(Group(name, rank, 1, cluster.cpus, gpu, node))
    if cluster.graders:
        found.append(Group("grader", 0, cluster.graders, cluster.cpus, 0, None))
    return found
