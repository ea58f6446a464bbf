"""A Ray cluster whose nodes have different versions of a library."""

from __future__ import annotations

import pytest

from tests.integration.rays import RayCluster

pytestmark = pytest.mark.integration

VERSIONS = """
import json, ray
ray.init(logging_level="error", log_to_driver=False)

@ray.remote(num_cpus=1)
def version():
    from importlib import metadata
    return metadata.version("math-verify")

def on(node):
    strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    return ray.get(version.options(scheduling_strategy=strategy).remote(), timeout=60)

print("VERSIONS", json.dumps(sorted(on(node) for node in ray.nodes())))
"""


def test_the_second_node_has_another_version(mixed_cluster: RayCluster) -> None:
    said = mixed_cluster.run("python", "-c", VERSIONS).stdout
    assert 'VERSIONS ["0.9.0", "9.9.9"]' in said, said
