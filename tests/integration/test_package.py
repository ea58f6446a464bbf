"""The wheel and the sdist, installed in an environment of their own and used outside a checkout."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.integration


def output(command: list[str | Path], cwd: Path, **variables: str) -> str:
    """Run a command that must succeed, outside this checkout's settings; its standard output."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONPATH", "VIRTUAL_ENV", "REASONTRAIN_DATA")
    }
    ended = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=environment | variables,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist of this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    output([sys.executable, "-m", "hatchling", "build", "-d", folder], ROOT)
    return folder


def files(wheel: Path) -> set[str]:
    """The files of a wheel, without those that hold its name and hashes."""
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def test_the_wheel_of_the_sdist_is_the_wheel_of_the_checkout(built: Path, tmp_path: Path) -> None:
    (wheel,), (sdist,) = built.glob("*.whl"), built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    output([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path], source)
    (again,) = tmp_path.glob("*.whl")
    assert files(again) == files(wheel)
    tracked = output(["git", "ls-files", "reasontrain", "recipes", "eval", "launch"], ROOT)
    expected = {
        path if path.startswith("reasontrain/") else f"reasontrain/resources/{path}"
        for path in tracked.split()
    }
    assert expected - files(wheel) == set()


def commands_of_the_start_page() -> list[list[str]]:
    """The commands of docs/start.md below "Train", in the page's order, without the program."""
    page = (ROOT / "docs/start.md").read_text(encoding="utf-8")
    block = page.partition("\n## Train\n")[2].partition("```sh\n")[2].partition("```")[0]
    return [shlex.split(line)[1:] for line in block.splitlines()]


QUICK = {
    "train": [
        *("steps=2", "learn.warmup_steps=0", "learn.rollouts_per_step=8", "sample.max_tokens=16"),
        *("evaluate.suites.0.limit=8", "task.num_problems=100"),
    ],
    "evaluate": ["--limit", "4"],
}
"""Command -> what makes it short."""


def install(wheel: Path, folder: Path) -> Path:
    """Install a wheel into an environment of its own below a folder; the environment's Python."""
    environment = folder / "environment"
    output([sys.executable, "-m", "venv", "--without-pip", environment], folder)
    python = environment / "bin/python"
    site = Path(
        output([python, "-c", "import site; print(site.getsitepackages()[0])"], folder).strip()
    )
    target = ["--no-deps", "--target", site]
    output([sys.executable, "-m", "pip", "install", "-q", *target, wheel], folder)
    # its dependencies are those of this environment; `.pth` files in there are not read again
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"])
    where = output([python, "-c", "import reasontrain; print(reasontrain.__file__)"], folder)
    assert Path(where.strip()).is_relative_to(site)
    return python


def test_the_start_page_works_outside_a_checkout(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    python, folder = install(wheel, tmp_path), tmp_path / "empty"
    folder.mkdir()
    run = [python, "-m", "reasontrain"]
    printed = {
        words[0]: output([*run, *words, *QUICK.get(words[0], [])], folder, OMP_NUM_THREADS="1")
        for words in commands_of_the_start_page()
    }
    assert list(printed) == ["recipes", "train", "evaluate", "report"]
    assert "arithmetic" in printed["evaluate"]
    record = json.loads((folder / "out/tip-tiny/environment.json").read_text())
    assert record["commit"] is None
    assert (folder / "out/tip-tiny/report.html").is_file()
    assert "fits" in output([*run, "plan", "tip.yaml"], folder).lower()
    assert len(output([*run, "suites"], folder).splitlines()) == 9
