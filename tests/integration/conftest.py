"""Clusters that tests share, and runs to compare with: all real, on this host, ended with the tests
that share them.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from reasontrain.cli import main
from tests.graders import IdleWorkers
from tests.integration.processes import ROOT, environment
from tests.integration.rays import RayCluster, ray_cluster
from tests.integration.slurm import Slurm, slurm

RECIPE = "recipes/tiny/tip.yaml"
SHORT = ("steps=2", "learn.warmup_steps=0", "evaluate=null", "task.num_problems=300")
LONGER = ("steps=16", "learn.rollouts_per_step=16", "evaluate=null", "task.num_problems=640")
"""Long enough to be stopped after two steps."""
ONE_WORKER = ("two_nodes", "mixed_cluster", "undisturbed", "single_worker_files", "tab")
"""Fixtures that cost more than the tests that use them: all tests of one run in one pytest worker.

Slurm's must share one for another reason too: job numbers, which name a job's folders in the
repository, start at 1 in every cluster.
"""
Reference = Callable[..., Path]
Metrics = list[dict[str, object]]


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tell pytest-xdist's `--dist loadgroup` which tests must share a worker."""
    for item in items:
        for name in ONE_WORKER:
            if name in getattr(item, "fixturenames", ()):
                item.add_marker(pytest.mark.xdist_group(name))


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[Slurm]:
    """Slurm with two nodes that claim two CPUs and two GPUs each."""
    with slurm(nodes=2, cpus=2, gpus=2) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def one_ray() -> Iterator[RayCluster]:
    """A Ray head, one for each pytest worker."""
    with ray_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def mixed_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    """Two Ray nodes, of which the second has SymPy 9.9.9, or says so."""
    other = tmp_path_factory.mktemp("other")
    (other / "sympy-9.9.9.dist-info").mkdir()
    (other / "sympy-9.9.9.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: sympy\nVersion: 9.9.9\n"
    )
    with ray_cluster(cpus=1, nodes=[{"PYTHONPATH": f"{other}:{ROOT}"}]) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory, idle_workers: IdleWorkers) -> Reference:
    """Train on this machine with nothing in the way; returns the run directory.

    The same command runs once in a session, whichever pytest worker asks first. It runs in this
    process, which has imported everything already, unless it starts processes of its own.
    """
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "references"
    shared.mkdir(exist_ok=True)

    def run(*overrides: str, recipe: str = RECIPE) -> Path:
        command = ["train", str(ROOT / recipe), *overrides]
        out = shared / hashlib.sha256("\0".join(command).encode()).hexdigest()[:16]
        with out.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            done = out.with_suffix(".done")
            if not done.exists():
                command.append(f"out={out}")
                if any(override.startswith("cluster.") for override in overrides):
                    subprocess.run(
                        ["reasontrain", *command], cwd=ROOT, env=environment(), check=True
                    )
                else:
                    with idle_workers.shared():
                        assert main(command) == 0
                done.touch()
        return run_in(out)

    return run


def run_in(out: Path) -> Path:
    """The one run directory there; stored columns may lie beside it."""
    (recipe,) = out.glob("*/recipe.yaml")
    return recipe.parent


def metrics(run: Path) -> Metrics:
    """What a run measured in each step, without what it measured with a clock, operations by
    whoever did them, and what the check of samplers measures, which only some runs have.
    """
    timed = ("time_", "mfu_", "hfu_", "tflop_", "memory_")
    check = ("canary_", "sampler_", "old_logp_")
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [
        {
            k: v
            for k, v in r.items()
            if not k.startswith((*timed, *check)) and not k.endswith("_per_s")
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
