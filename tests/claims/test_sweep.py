"""`reasontrain claims` on scripted runs: order, rates, verdicts, the table, and going on."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from reasontrain.claims.page import BEGIN, END
from reasontrain.cli import main
from tests.claims.test_settings import table

Claims = Callable[..., int]
LEVELS = {
    "tip 0.001": 4,
    "tip 0.0003": 6,
    "all 0.001": 5,
    "all 0.0003": 3,
    "random": 5,
    "shuffled": 6,
}


@pytest.fixture
def claims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Claims:
    """Test the row `one` in an empty directory, with runs that are made up; the exit code."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "reasontrain.claims.processes.TRAIN",
        (sys.executable, str(Path(__file__).with_name("scripted_train.py"))),
    )
    table(tmp_path)
    (tmp_path / "README.md").write_text(f"Above.\n\n{BEGIN}\nyesterday\n{END}\n\nBelow.\n")
    (tmp_path / "levels").write_text(json.dumps(LEVELS))
    return lambda *words: main(["claims", "claims.yaml", *words])


def calls() -> list[str]:
    return Path("calls").read_text().splitlines() if Path("calls").exists() else []


def test_a_row_is_run_judged_recorded_and_shown(claims: Claims, capsys: pytest.CaptureFixture[str]):
    assert claims() == 0
    # Every arm, rate and seed is asked the development suite; then the chosen rate of each arm the
    # suite that decides.
    assert Counter(call.split(" ", 3)[3] for call in calls()) == {"dev": 4 * 2 * 3, "held": 4 * 3}
    assert [call.split()[-1] for call in calls()] == ["dev"] * 24 + ["held"] * 12
    held = {tuple(call.split()[:2]) for call in calls() if call.endswith("held")}
    # random and shuffled are equal at both rates, and take the lower one
    assert held == {
        ("tip", "0.0003"),
        ("all", "0.001"),
        ("random", "0.0003"),
        ("shuffled", "0.0003"),
    }
    record = json.loads(Path("records/one.json").read_text())
    # 60 % less 50 % of 40 problems, the same for every seed
    assert (record["verdict"], record["num_problems"], record["difference"]["value"]) == (
        "holds",
        40,
        pytest.approx(0.1),
    )
    top, everything, _, shuffled = record["arms"]
    assert [swept["development"] for swept in top["sweep"]] == [[0.4] * 3, [0.6] * 3]
    assert (top["rate"], top["scores"], top["behind"]) == (3e-4, [0.6] * 3, None)
    assert everything["behind"] == record["difference"]
    assert shuffled["behind"]["value"] == 0
    assert (top["trained_tokens"], everything["trained_tokens"], top["sampled_tokens"]) == (
        20,
        40,
        2 * 5 * 4,
    )
    assert record["provenances"][0]["device"] == "cpu"
    assert len(record["provenances"][0]["origin"]["commit"]) == 40
    page = Path("README.md").read_text()
    assert page.startswith(f"Above.\n\n{BEGIN}\n\n| row | claim |")
    assert page.endswith(f"{END}\n\nBelow.\n")
    assert "yesterday" not in page
    assert "| `one` | P: C | `top` \N{MINUS SIGN} `all`: +10.0 [" in page
    assert "| `top` | 40.0 / 60.0 | 0.0003 | 60.0 |  | 20 / 40 |" in page
    assert capsys.readouterr().out.splitlines()[-2:] == ["one: holds", "table: README.md"]


def test_what_is_finished_is_not_run_again(claims: Claims, capsys: pytest.CaptureFixture[str]):
    assert claims() == 0
    before = len(calls())
    assert claims() == 0
    assert claims("one") == 0
    assert len(calls()) == before
    assert "one: has a current record" in capsys.readouterr().out


def test_a_command_that_failed_goes_on(claims: Claims, capsys: pytest.CaptureFixture[str]):
    Path("fail").touch()
    assert claims("--jobs", "1") == 1
    assert "failed: reasontrain: the disk is full (its log: out/claims/" in capsys.readouterr().err
    Path("fail").unlink()
    assert claims() == 0
    assert Counter(call.split()[-1] for call in calls()) == {"dev": 1 + 24, "held": 12}


def test_a_record_of_another_row_or_recipe_is_not_shown(claims: Claims):
    assert claims() == 0
    table(Path(), "claim=D")
    assert claims("--dry-run") == 0
    assert claims("one") == 0  # the same runs
    Path("base.yaml").write_text(Path("base.yaml").read_text().replace("steps: 2", "steps: 3"))
    num = len(calls())
    assert claims() == 0
    assert len(calls()) == num + 36  # all of them are other runs
    assert json.loads(Path("records/one.json").read_text())["steps"] == 3


def test_dry_counts_and_starts_nothing(claims: Claims, capsys: pytest.CaptureFixture[str]):
    assert claims("--dry-run") == 0
    assert (
        capsys.readouterr().out
        == "one: 24 runs, 0 of them finished; the time is unknown, since none is finished\n"
    )
    assert calls() == []


def test_a_page_without_a_place_is_told_before_anything_is_run(
    claims: Claims, capsys: pytest.CaptureFixture[str]
):
    Path("README.md").write_text("Nothing.\n")
    assert claims() == 2
    assert "README.md has no markers for the table" in capsys.readouterr().err
    assert calls() == []


def test_a_run_that_somebody_else_trains_is_left_alone(
    claims: Claims, capsys: pytest.CaptureFixture[str]
):
    Path("fail").touch()
    assert claims("--jobs", "1") == 1
    (lock,) = Path("out/claims").glob("*.lock")
    capsys.readouterr()
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert claims("--jobs", "1") == 1
    assert f"run {lock.stem} is being trained by another process" in capsys.readouterr().err


def test_runs_are_asked_to_save_when_the_command_is_stopped(claims: Claims):
    Path("slow").touch()

    def stop() -> None:
        for _ in range(3000):
            if Path("waiting").exists():
                break
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop, daemon=True).start()
    assert claims("--jobs", "1") == 1
    assert Path("saved").exists()
    assert len(calls()) == 1
