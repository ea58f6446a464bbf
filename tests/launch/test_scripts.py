"""The scripts in launch/: sound shell, no hyper-parameter, tokens on; and a manifest that KubeRay
takes.
"""

from __future__ import annotations

import re
import shutil
import subprocess
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
    recipe, *overrides = spec["entrypoint"].split()
    out = read_recipe(ROOT / recipe, overrides).out
    assert settings_named(" ".join(overrides)) <= WHERE
    groups = [spec["rayClusterSpec"]["headGroupSpec"], *spec["rayClusterSpec"]["workerGroupSpecs"]]
    for pod in (group["template"]["spec"] for group in groups):
        (container,) = pod["containers"]
        mounted = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        assert {volume["name"] for volume in pod["volumes"]} == set(mounted.values())
        assert out in mounted
