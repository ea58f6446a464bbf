"""What a recipe asks of a cluster, and what a cluster has room for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from ray.exceptions import GetTimeoutError
from ray.util.placement_group import PlacementGroup

from reasontrain.cluster import placement
from reasontrain.cluster.placement import ResourceRequest, check_room, needs
from reasontrain.recipe import Cluster, Recipe, apply_overrides, build
from reasontrain.types import UserError

SMALL = {
    "name": "small",
    "steps": 1,
    "model": {"path": "testbed:student"},
    "task": {"kind": "arithmetic"},
    "objective": {"kind": "nll"},
    "loss_aggregation": "token_mean",
    "learn": {"lr": 1e-3, "rollouts_per_step": 8},
}
Nodes = Callable[..., None]


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Nodes:
    """Sets the resources of the nodes that are alive; one more is dead."""

    def given(*resources: dict[str, float]) -> None:
        alive = [{"Alive": True, "Resources": {"memory": 1e9, **some}} for some in resources]
        monkeypatch.setattr(
            placement.ray,
            "nodes",
            lambda: [*alive, {"Alive": False, "Resources": {"CPU": 99.0, "GPU": 99.0}}],
        )

    return given


def recipe(*overrides: str) -> Recipe:
    return build(Recipe, apply_overrides(SMALL, list(overrides)), "small")


def asked(cluster: Cluster, *overrides: str, gpu: bool) -> list[ResourceRequest]:
    return needs(recipe(*overrides), cluster, gpu=gpu)


def test_roles_without_processes_need_nothing() -> None:
    assert asked(Cluster(cpus=2.0), gpu=False) == [ResourceRequest("learner", 1, 2.0, 0.0)]
    assert ResourceRequest("learner", 1, 2.0, 0.0).bundle == {"CPU": 2.0}
    assert ResourceRequest("grader", 1, 0.0, 0.0).bundle == {}


def test_all_but_graders_take_a_gpu_each() -> None:
    cluster = Cluster(learners=2, samplers=3, teachers=1, graders=4)
    assert asked(cluster, gpu=True) == [
        ResourceRequest("learner", 2, 1.0, 1.0),
        ResourceRequest("sampler", 3, 1.0, 1.0),
        ResourceRequest("teacher", 1, 1.0, 1.0),
        ResourceRequest("grader", 4, 1.0, 0.0),
    ]


def test_processes_that_share_a_gpu_take_a_part_of_it(nodes: Nodes) -> None:
    cluster = Cluster(learners=1, samplers=8, teachers=1, graders=1, gpus_per_process=0.1)
    wanted = asked(cluster, gpu=True)
    assert [need.gpus for need in wanted] == [0.1, 0.1, 0.1, 0.0]
    nodes({"CPU": 16.0, "GPU": 1.0})
    check_room(wanted)  # though nine times 0.1 leaves less than 0.1 in floating point
    with pytest.raises(UserError, match=r"1 teacher processes .* room for 0 of them"):
        check_room(asked(replace(cluster, samplers=9), gpu=True))


def test_a_sampler_with_vllm_takes_as_many_gpus_as_it_is_parallel() -> None:
    given = "sample.engine={kind: vllm, tensor_parallel_size: 4}", "cluster.samplers=2"
    assert asked(Cluster(samplers=2), *given, gpu=True)[1] == ResourceRequest(
        "sampler", 2, 1.0, 4.0
    )
    assert ResourceRequest("sampler", 2, 1.0, 4.0).bundle == {"CPU": 1.0, "GPU": 4.0}


def test_nine_gpus_where_there_are_none_are_refused_by_their_bundle(nodes: Nodes) -> None:
    nodes({"CPU": 16.0})
    with pytest.raises(UserError) as error:
        check_room(asked(Cluster(learners=9), gpu=True))
    assert str(error.value) == (
        "9 learner processes need a bundle of {'CPU': 1.0, 'GPU': 1.0} each, and the "
        "cluster (1 nodes, 16 CPUs, 0 GPUs) has room "
        "for 0 of them; lower cluster.learners or cluster.cpus, or add nodes"
    )


def test_processes_fit_over_two_nodes_and_no_process_over_the_gap_between_them(
    nodes: Nodes,
) -> None:
    nodes({"CPU": 3.0, "GPU": 2.0}, {"CPU": 3.0, "GPU": 2.0})
    check_room([ResourceRequest("learner", 4, 1.0, 1.0)])
    check_room([ResourceRequest("learner", 2, 3.0, 1.0)])
    with pytest.raises(UserError, match="has room for 2 of them"):
        check_room(
            [ResourceRequest("learner", 3, 2.0, 1.0)]
        )  # 6 cores, and no two of the third's are on one node
    with pytest.raises(UserError, match=r"1 sampler processes .* 'GPU': 4\.0"):
        check_room([ResourceRequest("sampler", 1, 1.0, 4.0)])


def test_roles_share_what_there_is(nodes: Nodes) -> None:
    """The wide sampler is placed first, or a learner would have taken a GPU of the only node that
    can hold it.
    """
    nodes({"CPU": 4.0, "GPU": 2.0}, {"CPU": 4.0, "GPU": 1.0})
    wanted = [
        ResourceRequest("learner", 1, 1.0, 1.0),
        ResourceRequest("sampler", 1, 1.0, 2.0),
        ResourceRequest("grader", 6, 1.0, 0.0),
    ]
    check_room(wanted)
    with pytest.raises(UserError, match=r"7 grader processes .* \{'CPU': 1.0\} .* room for 6"):
        check_room([*wanted[:2], ResourceRequest("grader", 7, 1.0, 0.0)])


def test_threads_are_a_share_of_the_node() -> None:
    """By hand: 96 cores over 8 GPUs are 12 for each, of which half a GPU has 6 and two have 24."""
    large, small = {"CPU": 96.0, "GPU": 8.0}, {"CPU": 8.0}
    wanted = [
        (ResourceRequest("learner", 1, 1.0, 1.0), large, 12),
        (ResourceRequest("sampler", 1, 1.0, 2.0), large, 24),
        (ResourceRequest("teacher", 1, 1.0, 0.5), large, 6),
        (ResourceRequest("grader", 1, 1.0, 0.0), large, 1),
        (ResourceRequest("learner", 1, 1.0, 0.0), small, 2),  # 8 cores for three models
        (ResourceRequest("sampler", 2, 1.0, 0.0), small, 2),
        (ResourceRequest("sampler", 2, 1.0, 0.0), small, 2),
        (ResourceRequest("grader", 1, 1.0, 0.0), small, 1),
        (ResourceRequest("learner", 1, 1.0, 0.1), {"CPU": 2.0, "GPU": 1.0}, 1),
        (ResourceRequest("learner", 1, 1.0, 0.1), {"CPU": 30.0, "GPU": 1.0}, 3),
    ]
    processes, nodes, threads = (list(column) for column in zip(*wanted, strict=True))
    assert placement.shared_cores(processes, nodes) == threads


def test_a_grader_that_takes_nothing_fits_everywhere(nodes: Nodes) -> None:
    nodes({"CPU": 1.0})
    check_room([ResourceRequest("learner", 1, 1.0, 0.0), ResourceRequest("grader", 5, 0.0, 0.0)])


class BusyRay:
    """A Ray whose resources become free after some waits."""

    def __init__(self, waits: int) -> None:
        self.waits = waits
        self.waited: list[float] = []

    def wait(self, refs: list[object], timeout: float) -> tuple[list[object], list[object]]:
        self.waited.append(timeout)
        return ([], refs) if self.waits else (refs, [])

    def get(self, ref: object, timeout: float | None = None) -> None:
        if timeout is not None:
            self.waited.append(timeout)
            if self.waits > 1:
                raise GetTimeoutError

    def available_resources(self) -> dict[str, float]:
        return {"CPU": 1.0}


class Reserved(PlacementGroup):
    """A placement group without a Ray."""

    def __init__(self) -> None:
        pass

    def ready(self) -> object:
        return self


@pytest.mark.parametrize("waits", [0, 1, 2])
def test_a_run_waits_for_others_with_one_line_and_a_limit(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, waits: int
) -> None:
    busy = BusyRay(waits)
    monkeypatch.setattr(placement, "ray", busy)
    caplog.set_level("INFO")
    wanted = [ResourceRequest("learner", 2, 1.0, 0.0)]
    line = (
        "the cluster is big enough and others use it: free are 1 CPUs and 0 GPUs, needed 2 x "
        "{'CPU': 1.0} for learners"
    )
    group = Reserved()
    if waits < 2:
        placement._wait_for(group, wanted, 100.0)
    else:
        with pytest.raises(UserError, match=r"still do after 100 s; raise cluster\.wait_s"):
            placement._wait_for(group, wanted, 100.0)
    assert busy.waited == ([10.0] if not waits else [10.0, 90.0])
    assert caplog.messages == ([f"{line}; waiting up to 100 s (cluster.wait_s)"] if waits else [])
