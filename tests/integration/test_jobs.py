"""Recipes as Ray jobs on a cluster with token authentication, and what becomes of those who have no
token or a wrong one.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from reasontrain.cluster.start import private_folder
from tests.integration.conftest import LONGER, RECIPE, SHORT, Reference, assert_same_run
from tests.integration.processes import ROOT, Process, environment, free_ports, until
from tests.integration.rays import RayCluster

pytestmark = pytest.mark.integration


def test_a_recipe_is_a_job_as_it_stands(
    one_ray: RayCluster, reference: Reference, tmp_path: Path
) -> None:
    """In the folder where Ray was started."""
    job = one_ray.submit(RECIPE, *SHORT, f"out={tmp_path}")
    assert job.returncode == 0, job.stdout
    assert "succeeded" in job.stdout
    assert f"report: {tmp_path}/tip-tiny/report.html" in job.stdout
    assert_same_run(tmp_path / "tip-tiny", reference(*SHORT))


def test_a_relative_out_lies_in_rays_copy_and_the_log_says_where(
    one_ray: RayCluster, reference: Reference
) -> None:
    """With the files of this folder."""
    job = one_ray.submit("--working-dir", ".", "--", RECIPE, *SHORT)
    assert job.returncode == 0, job.stdout
    page = re.search(
        r"^report: (/.*/working_dir_files/_ray_pkg_\w+/out/tip-tiny/report.html)$",
        job.stdout,
        re.MULTILINE,
    )
    assert page is not None, job.stdout
    assert Path(page[1]).is_relative_to(one_ray.folder)
    assert_same_run(Path(page[1]).parent, reference(*SHORT))


def test_a_job_of_many_processes_joins_the_cluster_that_runs_it(
    one_ray: RayCluster, reference: Reference, tmp_path: Path
) -> None:
    processes = ("cluster.learners=1", "cluster.samplers=1", "cluster.cpus=0.5")
    job = one_ray.submit("--", RECIPE, *SHORT, *processes, f"out={tmp_path}")
    assert job.returncode == 0, job.stdout + job.stderr
    assert_same_run(tmp_path / "tip-tiny", reference(*SHORT))


def test_a_wrong_recipe_fails_with_its_sentence_and_no_traceback(one_ray: RayCluster) -> None:
    job = one_ray.submit(RECIPE, "steps=0")
    assert job.returncode == 1
    assert "steps: Input should be greater than or equal to 1 (got 0)" in job.stdout
    assert "exit code 2" in job.stdout
    assert "Traceback" not in job.stdout


def test_a_stopped_job_saves_and_goes_on_when_it_is_submitted_again(
    one_ray: RayCluster, reference: Reference, tmp_path: Path
) -> None:
    words = (RECIPE, *LONGER, f"out={tmp_path}")
    assert one_ray.submit("--no-wait", "--submission-id=first", "--", *words).returncode == 0
    metrics = tmp_path / "tip-tiny" / "metrics.jsonl"
    until(
        lambda: metrics.exists() and metrics.read_text().count("\n") >= 2,
        limit_s=120,
        what="two steps",
    )
    assert one_ray.run("ray", "job", "stop", "first").returncode == 0
    assert "stopped by SIGTERM after step" in one_ray.run("ray", "job", "logs", "first").stdout
    again = one_ray.submit("--", *words)
    assert again.returncode == 0, again.stdout
    assert "resuming from" in again.stdout
    assert_same_run(tmp_path / "tip-tiny", reference(*LONGER))


STRANGERS = {
    "no token": ({"RAY_AUTH_TOKEN_PATH": ""}, "Ray couldn't find an authentication token"),
    "a wrong token": (
        {"RAY_AUTH_TOKEN_PATH": "", "RAY_AUTH_TOKEN": "wrong"},
        "Forbidden: Invalid authentication token",
    ),
    "no idea of tokens": (
        {"RAY_AUTH_TOKEN_PATH": "", "RAY_AUTH_MODE": "disabled"},
        "Missing authentication token",
    ),
}


@pytest.mark.parametrize("who", STRANGERS)
def test_strangers_are_told_what_they_lack(one_ray: RayCluster, tmp_path: Path, who: str) -> None:
    env, sentence = STRANGERS[who]
    job = one_ray.submit("--", "touch", str(tmp_path / "done"), env={**env, "HOME": str(tmp_path)})
    assert job.returncode != 0
    assert "ray.exceptions.AuthenticationError: " in job.stdout
    assert sentence in job.stdout
    assert not (tmp_path / "done").exists()


def script(
    *words: str, home: Path, cwd: Path = ROOT, **env: str
) -> subprocess.CompletedProcess[str]:
    """`launch/ray.sh WORDS`, for somebody with this home."""
    return subprocess.run(
        [str(ROOT / "launch" / "ray.sh"), *words],
        cwd=cwd,
        env=environment(HOME=str(home), **env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )


def test_ray_sh_starts_a_head_and_a_worker_submits_and_stops_them(
    one_ray: RayCluster, reference: Reference, tmp_path: Path
) -> None:
    home, other, folder, temporary = (
        tmp_path / "home",
        tmp_path / "other",
        tmp_path / "folder",
        Path("/tmp") / f"rs-{os.getpid()}",
    )
    for path in (home, other, folder):
        path.mkdir()
    (folder / "my_recipe.yaml").write_text((ROOT / RECIPE).read_text())
    (folder / "server.pem").write_text("secret")
    dashboard, port = free_ports(2)
    started = script(
        "head",
        f"--dashboard-port={dashboard}",
        f"--port={port}",
        f"--temp-dir={temporary}",
        "--num-cpus=1",
        home=home,
    )
    try:
        assert started.returncode == 0, started.stdout
        token = home / ".ray" / "auth_token"
        assert (token.stat().st_mode & 0o777, token.parent.stat().st_mode & 0o777) == (0o600, 0o700)
        assert temporary.stat().st_mode & 0o777 == 0o700
        assert token.read_text() not in started.stdout
        address = (temporary / "ray_current_cluster").read_text()
        refused = script("worker", address, home=other)
        assert (refused.returncode, "there is no token in" in refused.stdout) == (2, True)
        (other / ".ray").mkdir()
        shutil.copy(token, other / ".ray")
        joined = script("worker", address, f"--temp-dir={temporary}w", "--num-cpus=1", home=other)
        assert joined.returncode == 0, joined.stdout
        url = {"RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}"}
        words = ("submit", "my_recipe.yaml", *SHORT, f"out={tmp_path}/out")
        wrong = script(*words, "steps=0", home=home, cwd=folder, **url)
        assert (wrong.returncode, "steps: " in wrong.stdout) == (2, True), wrong.stdout
        assert "Uploading" not in wrong.stdout
        job = script(*words, home=home, cwd=folder, **url)
        assert job.returncode == 0, job.stdout
        assert "secrets:\n  server.pem\n" in job.stdout
        assert_same_run(tmp_path / "out" / "tip-tiny", reference(*SHORT))
        seen = 'import ray; ray.init(logging_level="error"); print("NODES", len(ray.nodes()))'
        env = environment(HOME=str(home), RAY_AUTH_MODE="token", RAY_ADDRESS=address)
        said = subprocess.run(
            ["python", "-c", seen], env=env, capture_output=True, text=True, timeout=60, check=True
        ).stdout
        assert "NODES 2" in said
        assert f"ended the Ray in {temporary}w\n" == script("stop", home=other).stdout
        assert f"ended the Ray in {temporary}\n" == script("stop", home=home).stdout
        assert (_processes_in(temporary), _processes_in(Path(f"{temporary}w"))) == ([], [])
        assert one_ray.run("ray", "status").returncode == 0  # another Ray of the same user
    finally:
        for path in (temporary, Path(f"{temporary}w")):
            for process in _processes_in(path):
                os.kill(process, signal.SIGKILL)
            shutil.rmtree(path, ignore_errors=True)


def _processes_in(temporary: Path) -> list[int]:
    """The processes of the Ray whose folder this is: `ray stop` would end everybody's."""
    inside = f"{temporary}/".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if any(inside in word or word.endswith(inside[:-1]) for word in words):
            found.append(int(process.name))
    return found


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "launch/ray.sh head"),
        (("stop",), "no Ray of this script runs on this machine"),
        (("sumbit",), "launch/ray.sh submit RECIPE"),
        (("worker",), "worker wants the head's ADDRESS"),
        (("submit",), "submit wants a RECIPE"),
        (("submit", RECIPE), "there is no token in"),
    ],
)
def test_ray_sh_explains_itself(tmp_path: Path, words: tuple[str, ...], sentence: str) -> None:
    said = script(*words, home=tmp_path)
    assert (said.returncode, sentence in said.stdout) == (2, True), said.stdout


def test_ray_sh_wants_to_know_where_runs_go(tmp_path: Path) -> None:
    said = script("submit", RECIPE, "out=here", home=tmp_path, RAY_AUTH_TOKEN="any")
    assert (
        said.returncode,
        "say where runs go on the cluster: out=/shared/folder" in said.stdout,
    ) == (2, True), said.stdout


def listening_addresses(root: int) -> set[str]:
    """Addresses that a process and those it started listen on."""
    with suppress(psutil.Error):
        return {
            connection.laddr.ip.removeprefix("::ffff:")
            for process in [psutil.Process(root), *psutil.Process(root).children(recursive=True)]
            for connection in process.net_connections(kind="inet")
            if connection.status == psutil.CONN_LISTEN
        }
    return set()  # one of them has just ended


def test_local_sh_trains_with_a_ray_closed_to_others_and_says_how_it_is_used(
    tmp_path: Path, reference: Reference
) -> None:
    """From a home that has no Ray yet, under the usual umask."""
    local = str(ROOT / "launch" / "local.sh")
    env = environment(HOME=str(tmp_path), RAY_ADDRESS="nowhere:1")
    apart = ("cluster.learners=1", "cluster.samplers=1", f"out={tmp_path}")
    command = ["bash", "-c", 'umask 022; exec "$@"', "bash", local, RECIPE, *SHORT, *apart]
    run = Process(command, tmp_path / "log", env, cwd=ROOT)
    seen: set[str] = set()
    while not run.ended:
        seen |= listening_addresses(run.popen.pid)
        time.sleep(0.2)
    run.end()
    assert run.popen.returncode == 0, run.log.read_text()
    assert seen == {"127.0.0.1"}
    token = tmp_path / ".ray" / "auth_token"
    closed = [path.stat().st_mode & 0o777 for path in (token, token.parent, private_folder())]
    assert closed == [0o600, 0o700, 0o700]
    assert (private_folder() / "local" / "session_latest").exists()
    assert_same_run(tmp_path / "tip-tiny", reference(*SHORT))
    asked = subprocess.run([local, "--help"], env=env, capture_output=True, text=True, check=False)
    assert (asked.returncode, "launch/local.sh RECIPE" in asked.stderr) == (2, True)
    assert (
        subprocess.run(
            [local, RECIPE, "steps=0"], cwd=ROOT, env=env, capture_output=True, check=False
        ).returncode
        == 2
    )
