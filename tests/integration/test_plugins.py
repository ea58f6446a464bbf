"""Plug-ins as a Ray job: sent with the job's folder, and by the driver to its processes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.integration.conftest import SHORT, Reference, assert_same_run
from tests.integration.processes import ROOT
from tests.integration.rays import RayCluster

pytestmark = pytest.mark.integration
EXAMPLE = "examples/plugin/surprise.yaml"


def test_a_job_with_plugins_in_its_working_directory_trains_in_many_processes(
    one_ray: RayCluster, reference: Reference, tmp_path: Path
) -> None:
    """The learner's and the sampler's processes get the code from the driver."""
    folder = tmp_path / "work"
    folder.mkdir()
    for name in ("surprise.yaml", "surprise.py"):
        shutil.copy(ROOT / "examples/plugin" / name, folder)
    processes = ("cluster.learners=1", "cluster.samplers=1", "cluster.cpus=0.5")
    words = ("./surprise.yaml", *SHORT, *processes, f"out={tmp_path}/out")
    job = one_ray.submit("--working-dir", ".", "--", *words, cwd=folder)
    assert job.returncode == 0, job.stdout
    run = tmp_path / "out/surprise-tiny"
    assert_same_run(run, reference(*SHORT, recipe=EXAMPLE))
    assert (run / "plugins/surprise.py").read_bytes() == (folder / "surprise.py").read_bytes()
