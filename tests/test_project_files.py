"""Files beside the code that services and builders read: images, CI, forms, citation, changes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import reasontrain

ROOT = Path(__file__).parents[1]
IMAGES = sorted((ROOT / "launch/docker").glob("*.Dockerfile"))
SCHEMAS = {
    ".github/workflows/ci.yml": "github-workflows",
    ".github/ISSUE_TEMPLATE/bug.yml": "github-issue-forms",
    ".github/ISSUE_TEMPLATE/method.yml": "github-issue-forms",
    ".github/ISSUE_TEMPLATE/config.yml": "github-issue-config",
    "CITATION.cff": "citation-file-format",
}


@pytest.mark.parametrize("image", IMAGES, ids=lambda path: path.stem)
def test_images_pass_the_linter(image: Path) -> None:
    """No docker runs where tests do, so nothing builds them there."""
    linter = Path(sys.executable).with_name("hadolint")
    ended = subprocess.run([linter, image], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout + ended.stderr) == (0, "")


def test_there_are_images_for_cpus_and_gpus() -> None:
    assert [path.stem for path in IMAGES] == ["cpu", "gpu"]


@pytest.mark.parametrize(("path", "schema"), SCHEMAS.items())
def test_services_can_read_their_files(path: str, schema: str) -> None:
    checker = Path(sys.executable).with_name("check-jsonschema")
    command = [checker, "--builtin-schema", f"vendor.{schema}", ROOT / path]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_every_file_for_the_service_is_checked() -> None:
    found = {p.relative_to(ROOT).as_posix() for p in (ROOT / ".github").rglob("*") if p.is_file()}
    assert found <= SCHEMAS.keys()


def test_ci_runs_what_everyone_runs() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    (job,) = workflow["jobs"].values()
    assert job["steps"][-1] == {"run": ".ci/run"}


def test_citation_and_changes_name_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == reasontrain.__version__
    headings = [
        line for line in (ROOT / "CHANGELOG.md").read_text().splitlines() if line.startswith("## ")
    ]
    assert headings[0].startswith(f"## {reasontrain.__version__}")
