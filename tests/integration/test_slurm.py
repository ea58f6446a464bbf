"""`launch/slurm/` on a real Slurm of two nodes: the numbers of one process, pre-emption, arrays,
evaluation, and failures.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.integration.conftest import (
    LONGER,
    RECIPE,
    SHORT,
    Reference,
    assert_same_run,
    losses,
    metrics,
)
from tests.integration.processes import ROOT, until
from tests.integration.slurm import Slurm

pytestmark = pytest.mark.integration

TRAIN, EVALUATE = "launch/slurm/train.sbatch", "launch/slurm/evaluate.sbatch"
NODES = ("--nodes=2",)
"""One CPU of each node: two learner ranks of a CPU each have to be on one each."""
SCALES: dict[str, tuple[str, ...]] = {
    "one process": (),
    "two ranks": ("cluster.learners=2", "learn.zero.stage=3", "learn.zero.persist_below=0"),
}


@pytest.mark.parametrize(
    ("recipe", "scale"), [(RECIPE, "one process"), ("recipes/tiny/grpo.yaml", "two ranks")]
)
def test_two_nodes_give_the_losses_of_one_process(
    two_nodes: Slurm, reference: Reference, tmp_path: Path, recipe: str, scale: str
) -> None:
    expected = reference(*SHORT, recipe=recipe)
    number = two_nodes.sbatch(
        TRAIN, recipe, *SHORT, *SCALES[scale], f"out={tmp_path}", options=NODES
    )
    job = two_nodes.wait(number)
    assert (job.state, job.exit_code) == ("COMPLETED", 0), job.output
    (run,) = tmp_path.iterdir()
    assert losses(run) == pytest.approx(losses(expected), abs=1e-5, rel=0)
    assert len(losses(run)) == 2
    assert f"report: {run}/report.html" in job.output
    assert two_nodes.left_behind(number) == [], job.output


PROBE = """#!{python}
import json, os, socket, stat, sys, ray
ray.init(logging_level="error", log_to_driver=False)
host, _, port = ray.get_runtime_context().gcs_address.partition(":")
token = os.environ["RAY_AUTH_TOKEN_PATH"]
mode = lambda path: oct(stat.S_IMODE(os.stat(path).st_mode))
resources = [node["Resources"] for node in ray.nodes()]
facts = {{
    "arguments": sys.argv[1:],
    "nodes": [{{name: node.get(name, 0) for name in ("CPU", "GPU")}} for node in resources],
    "token": [mode(token), mode(os.path.dirname(token)), len(open(token).read())],
    "temporary": mode(os.path.dirname(ray._private.worker.global_worker.node.get_temp_dir_path())),
    "dashboard": ray._private.worker.global_worker.node.address_info.get("webui_url"),
    "auth": os.environ["RAY_AUTH_MODE"],
}}
print("FACTS", json.dumps(facts))
sys.exit(3)
"""


def with_program(cluster: Slurm, folder: Path, name: str, text: str) -> Slurm:
    """The cluster as it is where a command is this program."""
    program = folder / "bin" / name
    program.parent.mkdir()
    program.write_text(text)
    program.chmod(0o755)
    return Slurm(
        cluster.folder,
        {**cluster.env, "PATH": f"{program.parent}{os.pathsep}{cluster.env['PATH']}"},
    )


@pytest.fixture
def probed(two_nodes: Slurm, tmp_path: Path) -> Slurm:
    """`reasontrain` looks around and ends with 3."""
    python = Path(two_nodes.env["PATH"].partition(":")[0]) / "python"
    return with_program(two_nodes, tmp_path, "reasontrain", PROBE.format(python=python))


def test_ray_has_what_slurm_gave_and_nobody_else_may_use_it(probed: Slurm) -> None:
    options = ("--nodes=2", "--cpus-per-task=2", "--gpus-per-node=1")
    number = probed.sbatch(TRAIN, "any.yaml", "a=b c", options=options)
    job = probed.wait(number)
    assert (job.state, job.exit_code) == ("FAILED", 3), job.output
    facts = json.loads(job.output.partition("FACTS ")[2].partition("\n")[0])
    assert facts["arguments"] == ["train", "any.yaml", "a=b c"]
    assert facts["nodes"] == [{"CPU": 2, "GPU": 1}] * 2
    assert facts["token"] == ["0o600", "0o700", 64]
    assert facts["temporary"] == "0o700"
    assert facts["dashboard"].startswith("127.0.0.1:")
    assert facts["auth"] == "token"
    assert probed.left_behind(number) == []


def test_two_jobs_on_one_host_have_a_ray_each(probed: Slurm) -> None:
    jobs = [probed.sbatch(TRAIN, f"{name}.yaml", options=("--nodes=1",)) for name in "ab"]
    for job, name in zip(map(probed.wait, jobs), "ab", strict=True):
        facts = json.loads(job.output.partition("FACTS ")[2].partition("\n")[0])
        assert (facts["arguments"], len(facts["nodes"])) == (["train", f"{name}.yaml"], 1)


def has_steps(run: Path, count: int) -> bool:
    return (run / "metrics.jsonl").exists() and len(
        (run / "metrics.jsonl").read_text().splitlines()
    ) >= count


@pytest.mark.parametrize(("how", "scale"), [("warned", "one process"), ("pre-empted", "two ranks")])
def test_a_pre_empted_job_saves_goes_back_into_the_queue_and_loses_nothing(
    two_nodes: Slurm, reference: Reference, tmp_path: Path, how: str, scale: str
) -> None:
    """A warning reaches the batch script alone; pre-emption also sends a TERM to what it started on
    the other node, which ranks there must survive.
    """
    expected = reference(*LONGER, *SCALES[scale])
    job = two_nodes.sbatch(
        TRAIN,
        RECIPE,
        *LONGER,
        *SCALES[scale],
        f"out={tmp_path}",
        options=(*NODES, "--partition=low"),
    )
    run = tmp_path / "tip-tiny"
    until(lambda: has_steps(run, 2), limit_s=120, what="two steps")
    if how == "warned":
        two_nodes.scancel(job, "--batch", "--signal=USR1")
    else:
        urgent = two_nodes.folder / "urgent"
        urgent.write_text("#!/bin/sh\nsleep 1\n")
        first = two_nodes.sbatch(
            str(urgent), options=("--nodes=2", "--exclusive", "--partition=high")
        )
        assert two_nodes.wait(first).state == "COMPLETED"
    ended = two_nodes.wait(job)
    assert (ended.state, ended.exit_code) == ("COMPLETED", 0), ended.output
    assert two_nodes.fact(job, "Restarts") == "1"
    assert "stopped by SIGTERM after step" in ended.output
    assert f"resuming from {run}/checkpoints/step-" in ended.output
    assert_same_run(run, expected)
    assert two_nodes.left_behind(job) == [], ended.output


def test_a_cancelled_job_saves_and_does_not_come_back(two_nodes: Slurm, tmp_path: Path) -> None:
    job = two_nodes.sbatch(TRAIN, RECIPE, *LONGER, f"out={tmp_path}", options=("--nodes=1",))
    run = tmp_path / "tip-tiny"
    until(lambda: has_steps(run, 1), limit_s=120, what="a step")
    two_nodes.scancel(job)
    ended = two_nodes.wait(job)
    assert ended.state == "CANCELLED"
    until(lambda: two_nodes.left_behind(job) == [], limit_s=30, what="the job to clean up")
    assert two_nodes.fact(job, "Restarts") == "0"
    assert "stopped by SIGTERM after step" in two_nodes.output(job)
    assert [path.name for path in (run / "checkpoints").iterdir()] == [f"step-{len(metrics(run))}"]


def test_an_array_is_a_run_for_each_seed(
    two_nodes: Slurm, reference: Reference, tmp_path: Path
) -> None:
    words = (TRAIN, RECIPE, "name=tip-%a", "seed=%a", *SHORT, f"out={tmp_path}")
    job = two_nodes.sbatch(*words, options=("--nodes=1", "--array=0-1"))
    for seed in (0, 1):
        ended = two_nodes.wait(f"{job}_{seed}")
        assert (ended.state, ended.exit_code) == ("COMPLETED", 0), ended.output
        run = tmp_path / f"tip-{seed}"
        assert yaml.safe_load((run / "recipe.yaml").read_text())["seed"] == seed
        assert_same_run(run, reference(*SHORT, *((f"seed={seed}",) if seed else ())))
    assert losses(tmp_path / "tip-0") != losses(tmp_path / "tip-1")


def test_evaluation_divides_models_over_nodes(two_nodes: Slurm, tmp_path: Path) -> None:
    words = (
        "testbed:student",
        "testbed:teacher",
        "testbed:noisy",
        "--suite",
        "arithmetic",
        "--limit",
        "8",
        "--out",
        str(tmp_path),
    )
    job = two_nodes.wait(two_nodes.sbatch(EVALUATE, *words, options=NODES))
    assert (job.state, job.exit_code) == ("COMPLETED", 0), job.output
    reports = {
        path.name: json.loads((path / "report.json").read_text()) for path in tmp_path.iterdir()
    }
    assert sorted(reports) == ["testbed-noisy", "testbed-student", "testbed-teacher"]
    assert job.output.count("report: ") == 3  # each by one node
    assert all(
        suite["num_problems"] == 8 for report in reports.values() for suite in report["suites"]
    )
    alone = tmp_path / "alone"
    command = ["reasontrain", "evaluate", "testbed:teacher", *words[3:-1], str(alone)]
    subprocess.run(command, cwd=ROOT, env=two_nodes.env, check=True)
    assert (
        json.loads((alone / "testbed-teacher" / "report.json").read_text())
        == reports["testbed-teacher"]
    )


REFUSED = {
    "no recipe": ((TRAIN,), "which RECIPE?"),
    "a wrong recipe": (
        (TRAIN, RECIPE, "steps=0"),
        "steps: Input should be greater than or equal to 1 (got 0)",
    ),
    "no model": ((EVALUATE, "--suite", "arithmetic"), "which MODEL?"),
    "a wrong suite": (
        (EVALUATE, "testbed:student", "--suite", "aritmetic"),
        "there is no suite 'aritmetic'",
    ),
}


def test_a_users_mistake_is_the_exit_code_of_the_job(two_nodes: Slurm) -> None:
    jobs = {case: two_nodes.sbatch(*words, options=NODES) for case, (words, _) in REFUSED.items()}
    for case, (_, sentence) in REFUSED.items():
        job = two_nodes.wait(jobs[case])
        assert (job.state, job.exit_code) == ("FAILED", 2), case
        assert sentence in job.output, case


def test_runs_of_an_array_must_not_share_a_folder(two_nodes: Slurm) -> None:
    job = two_nodes.sbatch(TRAIN, RECIPE, "seed=%a", options=("--nodes=1", "--array=3"))
    ended = two_nodes.wait(f"{job}_3")
    assert (ended.exit_code, "need names of their own" in ended.output) == (2, True)


def test_a_ray_that_does_not_start_is_shown(two_nodes: Slurm, tmp_path: Path) -> None:
    cluster = with_program(two_nodes, tmp_path, "ray", "#!/bin/sh\necho no ray today >&2\nexit 1\n")
    number = cluster.sbatch(TRAIN, RECIPE, options=("--nodes=1",))
    job = cluster.wait(number)
    assert (job.state, job.exit_code) == ("FAILED", 1)
    assert "Ray did not start on all of n" in job.output
    assert "no ray today" in job.output
    assert cluster.left_behind(number) == [], job.output
