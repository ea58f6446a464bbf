"""Clusters that tests share, and runs to compare with: all real, on this host, ended with the tests
that asked for them.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.integration.processes import ROOT, environment
from tests.integration.rays import RayCluster, ray_cluster
from tests.integration.slurm import Slurm, slurm

RECIPE = "recipes/tiny/tip.yaml"
SHORT = ("steps=2", "learn.warmup_steps=0", "evaluate=null", "task.num_problems=300")
LONGER = ("steps=16", "learn.rollouts_per_step=16", "evaluate=null", "task.num_problems=640")
"""Long enough to be stopped after two steps."""
Reference = Callable[..., Path]
Metrics = list[dict[str, object]]


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[Slurm]:
    """Slurm with two nodes that claim two CPUs and two GPUs each."""
    with slurm(nodes=2, cpus=2, gpus=2) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def one_ray() -> Iterator[RayCluster]:
    """A Ray head."""
    with ray_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def mixed_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    """Two Ray nodes, of which the second has math-verify 9.9.9, or says so."""
    other = tmp_path_factory.mktemp("other")
    (other / "math_verify-9.9.9.dist-info").mkdir()
    (other / "math_verify-9.9.9.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: math-verify\nVersion: 9.9.9\n"
    )
    with ray_cluster(cpus=1, nodes=[{"PYTHONPATH": f"{other}:{ROOT}"}]) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """Train on this machine with nothing in the way: the run directory.

    The same command is run once.
    """
    done: dict[tuple[str, ...], Path] = {}

    def run(*overrides: str, recipe: str = RECIPE) -> Path:
        key = (recipe, *overrides)
        if key not in done:
            out = tmp_path_factory.mktemp("reference")
            subprocess.run(
                ["reasontrain", "train", recipe, *overrides, f"out={out}"],
                cwd=ROOT,
                env=environment(),
                check=True,
            )
            done[key] = run_in(out)
        return done[key]

    return run


def run_in(out: Path) -> Path:
    """The one run directory there; stored columns may lie beside it."""
    (found,) = out.glob("*/recipe.yaml")
    return found.parent


def metrics(run: Path) -> Metrics:
    """What a run measured in each step, without what it measured with a clock, and operations by
    whoever did them.
    """
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [
        {
            k: v
            for k, v in r.items()
            if not k.startswith(("time_", "mfu_", "hfu_", "tflop_")) and not k.endswith("_per_s")
        }
        for r in records
    ]


def losses(run: Path) -> Sequence[float]:
    """The loss of each step."""
    return [float(str(record["loss"])) for record in metrics(run)]


def assert_same_run(ours: Path, theirs: Path) -> None:
    """The same steps, once each, and the same weights, bit for bit."""
    assert metrics(ours) == metrics(theirs)
    a, b = (load_file(run / "final" / "model.safetensors") for run in (ours, theirs))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
