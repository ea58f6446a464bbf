"""Versions that are written down are those of installed packages."""

from __future__ import annotations

import subprocess
from pathlib import Path

import torch

from reasontrain.metrics.environment import commit, environment


def test_versions_are_those_installed() -> None:
    facts = environment(["torch", "no-such-package"], {"seed": 3})
    assert facts["versions"] == {"torch": torch.__version__}
    assert facts["seed"] == 3


def test_the_commit_is_that_of_the_code_and_says_if_files_differ(tmp_path: Path) -> None:
    package = tmp_path / "site-packages"
    package.mkdir()
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    (tmp_path / "file").write_text("one")
    for arguments in (["init", "-q"], ["add", "file"], ["commit", "-qm", "one"]):
        subprocess.run([*git, *arguments], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    assert commit(tmp_path) == head.stdout.strip()
    (tmp_path / "file").write_text("two")
    assert commit(tmp_path) == head.stdout.strip() + "+changes"
    assert commit(package) is None  # inside a checkout that is not its own
