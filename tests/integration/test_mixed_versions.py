"""A Ray cluster whose nodes have different versions of a library."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.conftest import RECIPE
from tests.integration.rays import RayCluster

pytestmark = pytest.mark.integration

VERSIONS = """
import json, ray
ray.init(logging_level="error", log_to_driver=False)

@ray.remote(num_cpus=1)
def version():
    from importlib import metadata
    return metadata.version("sympy")

def on(node):
    affinity = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
    strategy = affinity(node["NodeID"], soft=False)
    return ray.get(version.options(scheduling_strategy=strategy).remote(), timeout=60)

print("VERSIONS", json.dumps(sorted(on(node) for node in ray.nodes())))
"""


def test_the_second_node_has_another_version(mixed_cluster: RayCluster) -> None:
    said = mixed_cluster.run("python", "-c", VERSIONS).stdout
    assert 'VERSIONS ["1.14.0", "9.9.9"]' in said, said


def test_a_run_refuses_them_with_a_table(mixed_cluster: RayCluster, tmp_path: Path) -> None:
    words = ("cluster.learners=1", f"out={tmp_path}")
    ended = mixed_cluster.run("reasontrain", "train", RECIPE, *words)
    assert ended.returncode == 2, ended.stdout
    assert "sympy: driver 1.14.0" in ended.stdout
    assert "9.9.9" in ended.stdout
    assert "Traceback" not in ended.stdout
