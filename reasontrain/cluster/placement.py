"""Start or join Ray, check a recipe's resources against the cluster's, and place every process."""

from __future__ import annotations

import logging
import math
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import ray
from ray.exceptions import AuthenticationError, GetTimeoutError, RayError
from ray.util.placement_group import (
    PlacementGroup,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from reasontrain.cluster import start
from reasontrain.cluster.actors import VERSIONS
from reasontrain.cluster.group import Slot
from reasontrain.metrics import environment
from reasontrain.metrics.timing import start_phase
from reasontrain.models import ModelSettings
from reasontrain.recipe import Cluster, EngineSettings, Recipe
from reasontrain.types import UserError

logger = logging.getLogger(__name__)

NO_SPARE_WORKERS = {"prestart_worker_first_driver": False, "enable_worker_prestart": False}
"""Ray settings that disable prestarted workers.

Ray would prestart one worker per core, but the actors have their own runtime environment and cannot
use such workers.
"""
HEAD_GONE = {"gcs_rpc_server_reconnect_timeout_s": 10}
"""Seconds that processes wait for a head node that does not answer.

The head of a cluster that this process started is never restarted, so longer waits only delay the
error.
"""
READY_S = 10.0
"""Seconds after which a wait for resources is announced."""
VERSIONS_S = 120.0
ROUNDING = 1e-6
"""Part of a resource that is lost when fractions of it are subtracted one by one."""


@dataclass(frozen=True)
class ResourceRequest:
    """Processes of one role: their number, the resources of each, and advice if they do not fit."""

    role: str
    number: int
    cpus: float
    gpus: float
    remedy: str = ""

    @property
    def bundle(self) -> dict[str, float]:
        """The resources of one process in Ray's form."""
        return {name: value for name, value in (("CPU", self.cpus), ("GPU", self.gpus)) if value}


def needs(recipe: Recipe, cluster: Cluster, *, gpu: bool) -> list[ResourceRequest]:
    """Resource requests of the recipe's processes; `gpu` is true if models are placed on GPUs."""
    one = cluster.gpus_per_process if gpu else 0.0
    per_sampler = one * recipe.engine.num_gpus
    wanted = [
        ResourceRequest("learner", cluster.learners, cluster.reserved_cpus, one),
        ResourceRequest("sampler", cluster.samplers, cluster.reserved_cpus, per_sampler),
        ResourceRequest("teacher", cluster.teachers, cluster.reserved_cpus, one),
        ResourceRequest("grader", cluster.graders, cluster.reserved_cpus, 0.0),
    ]
    return [need for need in wanted if need.number]


def joined_address() -> str | None:
    """The address of the cluster to join; None: this process starts its own."""
    address = os.environ.get("RAY_ADDRESS")
    return None if address in (None, "", "local") else address


@contextmanager
def connected(cpus: float) -> Iterator[None]:
    """Join the cluster at RAY_ADDRESS, or start a local one with at least `cpus` CPUs.

    A local cluster is shut down when the block ends.
    """
    address = joined_address()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Workers write to their own log files; forwarded to the driver, their output would break the
    # progress bar.
    quiet = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": True}
    handler = signal.getsignal(signal.SIGTERM)
    try:
        if address:
            start_phase(logger, f"joining the Ray cluster at {address}")
            start.check_token(address)
            ray.init(address=address, **quiet)
        else:
            start_phase(logger, "starting Ray on this machine")
            # Logical CPUs: a recipe with more processes than cores still runs, only slower.
            num_cpus = max(os.cpu_count() or 1, math.ceil(cpus))
            start.start(num_cpus, {**NO_SPARE_WORKERS, **HEAD_GONE}, quiet)
    except AuthenticationError as error:
        raise UserError(
            f"the Ray cluster at {address} requires a token: {str(error).strip().splitlines()[0]}"
        ) from None
    except ConnectionError as error:
        raise UserError(
            f"the Ray cluster at RAY_ADDRESS={address} cannot be joined "
            f"({str(error).strip().splitlines()[0]}): is it there, "
            "and is its token this one's too (`ray get-auth-token`, RAY_AUTH_MODE=token)?"
        ) from None
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)  # `ray.init` sets one that exits without a word
    try:
        yield
    finally:
        ray.shutdown()


def uses_gpus(model: ModelSettings) -> bool:
    """True if models are placed on GPUs: by their settings, or because the cluster has GPUs."""
    return model.device == "cuda" or (
        model.device == "auto" and ray.cluster_resources().get("GPU", 0) > 0
    )


def check_room(wanted: list[ResourceRequest]) -> None:
    """Raise UserError, naming the bundle, for a request that the cluster could never hold.

    Ray would wait forever for such a placement group.
    """
    nodes = [dict(node["Resources"]) for node in ray.nodes() if node["Alive"]]
    total = {name: sum(node.get(name, 0.0) for node in nodes) for name in ("CPU", "GPU")}
    # First fit, GPU processes first: CPU-only processes must not take the CPUs of GPU nodes.
    for need in sorted(wanted, key=lambda need: -need.gpus):
        placed = 0
        for node in nodes:
            while placed < need.number and all(
                node.get(name, 0.0) >= amount - ROUNDING for name, amount in need.bundle.items()
            ):
                for name, amount in need.bundle.items():
                    node[name] -= amount
                placed += 1
        if placed < need.number:
            raise UserError(
                f"{need.number} {need.role} processes need a bundle of {need.bundle} each, "
                f"and the cluster ({len(nodes)} nodes, "
                f"{total['CPU']:g} CPUs, {total['GPU']:g} GPUs) has room for {placed} of them; "
                f"{need.remedy or f'lower cluster.{need.role}s or cluster.cpus'}, or add nodes"
            )


def check_versions(engine: EngineSettings) -> None:
    """Raise UserError, with a table of differences, if nodes have other library versions.

    The packages of the sampler engine are among them if the engine needs any. A Ray that this
    process started runs in this process's environment and needs no check.
    """
    if joined_address() is None:
        return
    names = (*VERSIONS, *engine.capabilities.packages)
    own = own_versions(names)
    by_node = {"driver": own}
    requests = {}
    for node in ray.nodes():
        if node["Alive"]:
            # Soft affinity would let Ray run the task on another node.
            where = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            requests[f"{node['NodeManagerHostname']}:{node['NodeManagerPort']}"] = (
                _remote_versions.options(scheduling_strategy=where).remote(names)
            )
    ready, _ = (
        ray.wait(list(requests.values()), num_returns=len(requests), timeout=VERSIONS_S)
        if requests
        else ([], [])
    )
    try:
        by_node |= {name: ray.get(ref) for name, ref in requests.items() if ref in ready}
    except RayError as error:
        last = [line for line in str(error).splitlines() if line.strip()][-1]
        raise UserError(
            f"a node of this cluster cannot run reasontrain ({last.strip()}); install the "
            f"same on all nodes"
        ) from None
    if missing := [name for name in requests if name not in by_node]:
        raise UserError(
            f"no process could be started on {', '.join(missing)} within {VERSIONS_S:g} s; "
            f"look at that node's Ray"
        )
    differing = [
        name
        for name in ("python", *names)
        if len({versions.get(name) for versions in by_node.values()}) > 1
    ]
    if differing:
        rows = [
            f"  {key}: "
            + ", ".join(
                f"{name} {versions.get(key) or 'none'}" for name, versions in by_node.items()
            )
            for key in differing
        ]
        raise UserError(
            "the nodes of this cluster have other versions of libraries; make them equal:\n"
            + "\n".join(rows)
        )


def own_versions(names: Sequence[str]) -> dict[str, str]:
    """Versions of Python and of the named packages that are installed here."""
    return {"python": sys.version.split()[0], **environment.versions(names)}


_remote_versions = ray.remote(num_cpus=0)(own_versions)


@contextmanager
def placed(
    wanted: list[ResourceRequest], strategy: str, *, wait_s: float, share_cores: bool = False
) -> Iterator[dict[str, list[Slot]]]:
    """Create one placement group for all processes; yield the slots of each role.

    A group is placed as a whole or not at all, so two runs cannot each hold half of the resources
    they need. If other jobs hold them, wait.

    Args:
        wanted: The processes of each role.
        strategy: `pack` or `spread`.
        wait_s: Longest wait for resources that others use, in seconds.
        share_cores: Give processes with a model the threads of their share of their node, and not
            of the CPUs that they reserve.

    Raises:
        UserError: The resources are still in use after that time.
    """
    # Ray rejects empty bundles; 0.001 CPU stands for a process that requests nothing.
    bundles = [need.bundle or {"CPU": 0.001} for need in wanted for _ in range(need.number)]
    group: PlacementGroup = placement_group(bundles, strategy=strategy.upper())
    try:
        _wait_for(group, wanted, wait_s)
        processes = [need for need in wanted for _ in range(need.number)]
        threads = [max(1, int(need.cpus)) for need in processes]
        if share_cores:
            node_of = placement_group_table(group)["bundles_to_node_id"]
            nodes = {node["NodeID"]: node["Resources"] for node in ray.nodes()}
            threads = shared_cores(processes, [nodes[node_of[i]] for i in range(len(processes))])
        slots: dict[str, list[Slot]] = {"learner": [], "sampler": [], "teacher": [], "grader": []}
        for index, need in enumerate(processes):
            cpus = need.bundle.get("CPU", 0.001 if not need.gpus else 0.0)
            slots[need.role].append(Slot(group, index, cpus, need.gpus, threads[index]))
        yield slots
    finally:
        remove_placement_group(group)


def shared_cores(
    processes: Sequence[ResourceRequest], nodes: Sequence[Mapping[str, float]]
) -> list[int]:
    """Threads of each process, by its share of its node.

    A process with GPUs has the node's cores per GPU, whoever uses the other GPUs; processes with a
    model on the CPU divide the cores of their node. Graders compute in processes of their own.

    Args:
        processes: The request of each process.
        nodes: Resources of the node that each lies on; the same object for the same node.
    """
    threads = []
    for process, node in zip(processes, nodes, strict=True):
        if process.role == "grader":
            threads.append(1)
            continue
        if process.gpus:
            share = process.gpus / node["GPU"]
        else:
            others = zip(processes, nodes, strict=True)
            share = 1 / sum(each is node and other.role != "grader" for other, each in others)
        threads.append(max(1, int(node.get("CPU", 0.0) * share + ROUNDING)))
    return threads


def _wait_for(group: PlacementGroup, wanted: list[ResourceRequest], wait_s: float) -> None:
    """Return when a placement group has its resources; log once if that takes long."""
    ready = group.ready()
    quiet_s = min(READY_S, wait_s)
    if ray.wait([ready], timeout=quiet_s)[0]:
        ray.get(ready)
        return
    free = {name: ray.available_resources().get(name, 0.0) for name in ("CPU", "GPU")}
    requested = ", ".join(f"{n.number} x {n.bundle} for {n.role}s" for n in wanted)
    busy = (
        f"the cluster is big enough and others use it: free are {free['CPU']:g} CPUs and "
        f"{free['GPU']:g} GPUs, needed {requested}"
    )
    logger.info(f"{busy}; waiting up to {wait_s:g} s (cluster.wait_s)")
    try:
        ray.get(ready, timeout=wait_s - quiet_s)
    except GetTimeoutError:
        raise UserError(
            f"{busy}, and still do after {wait_s:g} s; raise cluster.wait_s, or ask for less"
        ) from None
