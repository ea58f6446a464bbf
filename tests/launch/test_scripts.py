"""The scripts in launch/: sound shell, no hyper-parameter, tokens on; and a manifest that KubeRay
takes.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from reasontrain.recipe import Recipe, read_recipe

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(
    path.relative_to(ROOT).as_posix()
    for kind in ("*.sh", "*.sbatch")
    for path in (ROOT / "launch").rglob(kind)
)
SCRIPTS_OF_CI = [*SCRIPTS, ".ci/run"]
MANIFEST = ROOT / "launch" / "kuberay" / "rayjob.yaml"
WHERE = frozenset({"name", "out", "seed"})
"""Settings that a launch script may speak of: they say where a run goes, not what it does."""


def test_there_are_scripts() -> None:
    assert SCRIPTS == [
        "launch/kuberay/submit.sh",
        "launch/local.sh",
        "launch/ray.sh",
        "launch/slurm/evaluate.sbatch",
        "launch/slurm/train.sbatch",
    ]


@pytest.mark.parametrize("script", SCRIPTS_OF_CI)
def test_the_shell_is_sound(script: str) -> None:
    subprocess.run(["bash", "-n", script], cwd=ROOT, check=True)
    if shutil.which("shellcheck"):
        found = subprocess.run(
            ["shellcheck", script], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert found.stdout == ""
    assert "set -euo pipefail" in (ROOT / script).read_text()


def settings_named(text: str) -> set[str]:
    """Top-level keys of a recipe that a text sets, alone (`steps=`) or with what is under them
    (`learn.lr=`).
    """
    keys = "|".join(field.name for field in fields(Recipe))
    return set(re.findall(rf"(?<![\w-])({keys})(?:\.[\w.]+)?=(?!\()", text))


def test_a_hyper_parameter_would_be_seen() -> None:
    assert settings_named("reasontrain train x.yaml learn.lr=1 steps=2 name=a") == {
        "learn",
        "steps",
        "name",
    }


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_say_where_never_what(script: str) -> None:
    assert settings_named((ROOT / script).read_text()) <= WHERE


@pytest.mark.parametrize(
    "script", ["launch/local.sh", "launch/ray.sh", "launch/slurm/train.sbatch"]
)
def test_tokens_are_on_and_dashboards_on_loopback(script: str) -> None:
    text = (ROOT / script).read_text()
    assert "RAY_AUTH_MODE=token" in text
    assert text.count("--head") == 0 or "--dashboard-host=127.0.0.1" in text


def test_the_manifest_is_of_this_ray_with_a_token() -> None:
    manifest = yaml.safe_load(MANIFEST.read_text())
    cluster = manifest["spec"]["rayClusterSpec"]
    (pinned,) = re.findall(r"^ray==(.*)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert (manifest["apiVersion"], manifest["kind"]) == ("ray.io/v1", "RayJob")
    assert cluster["rayVersion"] == pinned
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"]["enableIngress"] is False


def test_the_manifest_runs_a_recipe_into_a_volume_that_all_pods_have() -> None:
    spec = yaml.safe_load(MANIFEST.read_text())["spec"]
    command, subcommand, recipe, *overrides = spec["entrypoint"].split()
    assert (command, subcommand) == ("reasontrain", "train")
    out = read_recipe(ROOT / recipe, overrides).out
    assert settings_named(" ".join(overrides)) <= WHERE
    groups = [spec["rayClusterSpec"]["headGroupSpec"], *spec["rayClusterSpec"]["workerGroupSpecs"]]
    for pod in (group["template"]["spec"] for group in groups):
        (container,) = pod["containers"]
        mounted = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        assert {volume["name"] for volume in pod["volumes"]} == set(mounted.values())
        assert out in mounted


def run(*words: str, path: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """A script, with commands of `path` before this environment's, and no Slurm around it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    before = f"{path}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{kept['PATH']}"
    return subprocess.run(
        words,
        cwd=ROOT,
        env={**kept, "PATH": before, "PYTHONPATH": str(ROOT), **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def scripted(path: Path, name: str, line: str) -> None:
    """A command of this name that runs one line of shell."""
    command = path / name
    command.write_text(f"#!/bin/sh\n{line}\n")
    command.chmod(0o755)


@pytest.mark.parametrize("script", ["train", "evaluate"])
def test_a_slurm_script_outside_slurm_is_one_sentence(tmp_path: Path, script: str) -> None:
    said = run("bash", f"launch/slurm/{script}.sbatch", "words", path=tmp_path)
    assert said.returncode == 2
    assert said.stderr.count("\n") == 1
    assert "this is not a Slurm job; submit it: sbatch " in said.stderr


def test_a_job_of_kubernetes_is_checked_first_and_trains(tmp_path: Path) -> None:
    recipe = tmp_path / "my recipe.yaml"
    recipe.write_text((ROOT / "recipes/tiny/tip.yaml").read_text())  # not an executable file
    scripted(tmp_path, "kubectl", f'echo "$@" >{tmp_path}/words; cat >{tmp_path}/manifest')
    script = "launch/kuberay/submit.sh"
    wrong = run(script, str(recipe), "out=/runs", "steps=0", path=tmp_path)
    assert (wrong.returncode, "steps: " in wrong.stderr) == (2, True), wrong.stderr
    assert not (tmp_path / "words").exists() or (tmp_path / "manifest").read_text() == ""
    right = run(script, str(recipe), "out=/runs", "name=a", path=tmp_path)
    assert right.returncode == 0, right.stderr
    job = yaml.safe_load((tmp_path / "manifest").read_text())
    words = ["reasontrain", "train", str(recipe), "out=/runs", "name=a"]
    assert shlex.split(job["spec"].pop("entrypoint")) == words
    expected = yaml.safe_load(MANIFEST.read_text())
    del expected["spec"]["entrypoint"]
    assert job == expected
    nowhere = run(script, str(recipe), "out=here", path=tmp_path)
    assert (nowhere.returncode, "say where runs go" in nowhere.stderr) == (2, True)


def test_stop_of_a_machine_without_a_ray_of_this_script_is_a_sentence(tmp_path: Path) -> None:
    said = run("launch/ray.sh", "stop", path=tmp_path, XDG_STATE_HOME=str(tmp_path))
    assert said.returncode == 2
    assert said.stderr == "launch/ray.sh: no Ray of this script runs on this machine\n"
