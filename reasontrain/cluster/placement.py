"""Ray started or joined, what the recipe asks for compared with what there is, and every process
put in its place.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import ray
from ray.exceptions import AuthenticationError, GetTimeoutError, RayError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from reasontrain.cluster.actors import VERSIONS
from reasontrain.cluster.group import Slot
from reasontrain.metrics import environment
from reasontrain.models import ModelSettings
from reasontrain.recipe import Cluster, Recipe
from reasontrain.types import UserError

NO_SPARE_WORKERS = {"prestart_worker_first_driver": False, "enable_worker_prestart": False}
"""Ray would start a process per core in advance; our actors have an environment of their own and
cannot use them.
"""
HEAD_GONE = {"gcs_rpc_server_reconnect_timeout_s": 10}
"""How long everybody waits for a head that does not answer; nothing starts a head again that lives
in this process's cluster.
"""
READY_S = 10.0
VERSIONS_S = 120.0


@dataclass(frozen=True)
class ResourceRequest:
    """Processes of one role, what each takes, and what to change where there is no room for them."""

    role: str
    number: int
    cpus: float
    gpus: float
    remedy: str = ""

    @property
    def bundle(self) -> dict[str, float]:
        """As Ray writes it."""
        return {name: value for name, value in (("CPU", self.cpus), ("GPU", self.gpus)) if value}


def needs(recipe: Recipe, cluster: Cluster, *, gpu: bool) -> list[ResourceRequest]:
    """What the recipe's processes take; `gpu` says whether models lie on GPUs."""
    one = 1.0 if gpu else 0.0
    per_sampler = one * recipe.engine.num_gpus
    wanted = [
        ResourceRequest("learner", cluster.learners, cluster.cpus, one),
        ResourceRequest("sampler", cluster.samplers, cluster.cpus, per_sampler),
        ResourceRequest("teacher", cluster.teachers, cluster.cpus, one),
        ResourceRequest("grader", cluster.graders, cluster.cpus, 0.0),
    ]
    return [need for need in wanted if need.number]


@contextmanager
def connected(cpus: float) -> Iterator[None]:
    """Join the cluster at RAY_ADDRESS, or start one on this machine, of at least so many CPUs, that
    ends with the block.
    """
    address = os.environ.get("RAY_ADDRESS")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    quiet = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": True}
    try:
        if address:
            ray.init(address=address, **quiet)
        else:
            ray.init(
                num_cpus=max(os.cpu_count() or 1, math.ceil(cpus)),
                include_dashboard=False,
                _system_config=NO_SPARE_WORKERS | HEAD_GONE,
                **quiet,
            )
    except AuthenticationError as error:
        raise UserError(
            f"the Ray cluster at {address} wants a token: {str(error).strip().splitlines()[0]}"
        ) from None
    except ConnectionError as error:
        raise UserError(
            f"the Ray cluster at RAY_ADDRESS={address} cannot be joined "
            f"({str(error).strip().splitlines()[0]}): is it there, "
            "and is its token this one's too (`ray get-auth-token`, RAY_AUTH_MODE=token)?"
        ) from None
    try:
        yield
    finally:
        ray.shutdown()


def uses_gpus(model: ModelSettings) -> bool:
    """Whether models lie on GPUs: as their settings say, or where the cluster has any."""
    return model.device == "cuda" or (
        model.device == "auto" and ray.cluster_resources().get("GPU", 0) > 0
    )


def check_engine(recipe: Recipe, *, gpu: bool) -> None:
    """Refuse an engine that this cluster cannot run; raises UserError."""
    capabilities = recipe.engine.capabilities
    if capabilities.needs_gpu and not gpu:
        raise UserError(
            f"sample.engine: {capabilities.label} needs GPUs, and this cluster has none; "
            "use `kind: local`"
        )


def check_room(wanted: list[ResourceRequest]) -> None:
    """Refuse what the cluster can never hold, naming the bundle; raises UserError at once."""
    nodes = [dict(node["Resources"]) for node in ray.nodes() if node["Alive"]]
    total = {name: sum(node.get(name, 0.0) for node in nodes) for name in ("CPU", "GPU")}
    for need in sorted(wanted, key=lambda need: -need.gpus):
        placed = 0
        for node in nodes:
            while placed < need.number and all(
                node.get(name, 0.0) >= amount for name, amount in need.bundle.items()
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


def check_versions() -> None:
    """Refuse nodes whose libraries are not those of this process, with the table of what differs.

    A Ray that this process started is of this process's own environment.
    """
    if not os.environ.get("RAY_ADDRESS"):
        return
    ours = {"python": sys.version.split()[0], **environment.versions(VERSIONS)}
    here = {"driver": ours}
    asked = {}
    for node in ray.nodes():
        if node["Alive"]:
            where = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            asked[f"{node['NodeManagerHostname']}:{node['NodeManagerPort']}"] = _versions.options(
                scheduling_strategy=where
            ).remote()
    ready, _ = (
        ray.wait(list(asked.values()), num_returns=len(asked), timeout=VERSIONS_S)
        if asked
        else ([], [])
    )
    try:
        here |= {name: ray.get(ref) for name, ref in asked.items() if ref in ready}
    except RayError as error:
        last = [line for line in str(error).splitlines() if line.strip()][-1]
        raise UserError(
            f"a node of this cluster cannot run reasontrain ({last.strip()}); install the "
            f"same on all nodes"
        ) from None
    if missing := [name for name in asked if name not in here]:
        raise UserError(
            f"no process could be started on {', '.join(missing)} within {VERSIONS_S:g} s; "
            f"look at that node's Ray"
        )
    keys = [key for key in ours if len({found.get(key) for found in here.values()}) > 1]
    if keys:
        rows = [
            f"  {key}: "
            + ", ".join(f"{name} {found.get(key) or 'none'}" for name, found in here.items())
            for key in keys
        ]
        raise UserError(
            "the nodes of this cluster have other versions of libraries; make them equal:\n"
            + "\n".join(rows)
        )


@ray.remote(num_cpus=0)  # type: ignore[untyped-decorator]
def _versions() -> dict[str, str]:
    return {"python": sys.version.split()[0], **environment.versions(VERSIONS)}


@contextmanager
def placed(wanted: list[ResourceRequest], strategy: str) -> Iterator[dict[str, list[Slot]]]:
    """One placement group for all; the slots of each role.

    Raises UserError where others use what is needed.
    """
    bundles = [need.bundle or {"CPU": 0.001} for need in wanted for _ in range(need.number)]
    group: PlacementGroup = placement_group(bundles, strategy=strategy.upper())
    try:
        try:
            ray.get(group.ready(), timeout=READY_S)
        except GetTimeoutError:
            free = {name: ray.available_resources().get(name, 0.0) for name in ("CPU", "GPU")}
            raise UserError(
                f"the cluster is big enough and others use it: free are {free['CPU']:g} "
                f"CPUs and {free['GPU']:g} GPUs, needed "
                f"{', '.join(f'{need.number} x {need.bundle} for {need.role}s' for need in wanted)}; "
                f"wait, or ask for less"
            ) from None
        slots: dict[str, list[Slot]] = {"learner": [], "sampler": [], "teacher": [], "grader": []}
        index = 0
        for need in wanted:
            for _ in range(need.number):
                slots[need.role].append(
                    Slot(
                        group,
                        index,
                        need.bundle.get("CPU", 0.001 if not need.gpus else 0.0),
                        need.gpus,
                    )
                )
                index += 1
        yield slots
    finally:
        remove_placement_group(group)
