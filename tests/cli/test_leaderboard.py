"""`reasontrain leaderboard` as a person types it."""

from __future__ import annotations

from pathlib import Path

import pytest

from reasontrain.cli import main
from tests.leaderboard.conftest import SAMPLING, make_run, single

__all__ = ["make_run"]


def test_a_site_is_written_and_unlike_protocols_are_one_sentence(
    make_run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    runs = [
        str(make_run("a", {1: single("10")})),
        str(make_run("b", {1: single("11")}, sampling={**SAMPLING, "max_tokens": 9})),
    ]
    site = tmp_path / "site"
    assert main(["leaderboard", runs[0], "--out", str(site)]) == 0
    assert capsys.readouterr().out == f"wrote {site / 'index.html'}\n"
    assert main(["leaderboard", *runs, "--out", str(tmp_path / "none")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "suite heldout cannot be one column" in said
    assert not (tmp_path / "none").exists()
    assert main(["leaderboard", *runs, "--out", str(site), "--separate"]) == 0
