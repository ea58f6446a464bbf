"""Which processes run where: the bundles that Ray is asked for, and the nodes that they fill."""

from __future__ import annotations

from dataclasses import dataclass

from reasontrain.plan.roles import PlannedJob


@dataclass(frozen=True)
class PlacementGroup:
    """Processes of one role on one node, each with this bundle. `node` is None where any will do."""

    role: str
    first: int
    processes: int
    cpus: float
    gpus: int
    node: int | None


def placement(job: PlannedJob) -> list[PlacementGroup]:
    """Learners first, then samplers and teachers; graders go where cores are.

    `pack` takes the first node that has room, `spread` the emptiest. An engine of vLLM takes all
    its GPUs on one node.
    """
    cluster = job.cluster
    gpu = int(job.on_gpu)
    engine = gpu * (job.vllm.tensor_parallel_size if job.vllm is not None else 1)
    wanted = (
        [("learner", gpu)] * cluster.learners
        + [("sampler", engine)] * cluster.samplers
        + [("teacher", gpu)] * cluster.teachers
    )
    used = [0] * -(-sum(gpus for _, gpus in wanted) // job.machine.gpus_per_node)
    found: list[PlacementGroup] = []
    count: dict[str, int] = {}
    for name, gpus in wanted:
        node = _node(used, gpus, job) if gpu else None
        rank = count[name] = count.get(name, -1) + 1
        last = found[-1] if found else None
        if last is not None and (last.role, last.node) == (name, node):
            found[-1] = PlacementGroup(
                name, last.first, last.processes + 1, cluster.cpus, gpus, node
            )
        else:
            found.append(PlacementGroup(name, rank, 1, cluster.cpus, gpus, node))
    if cluster.graders:
        found.append(PlacementGroup("grader", 0, cluster.graders, cluster.cpus, 0, None))
    return found


def _node(used: list[int], gpus: int, job: PlannedJob) -> int:
    """The node that takes so many GPUs more, written down in `used`; a new one where none has room."""
    room = [node for node, taken in enumerate(used) if taken + gpus <= job.machine.gpus_per_node]
    if not room:
        used.append(0)
        room = [len(used) - 1]
    node = room[0] if job.cluster.placement == "pack" else min(room, key=lambda node: used[node])
    used[node] += gpus
    return node
