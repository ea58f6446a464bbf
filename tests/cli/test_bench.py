"""`reasontrain bench` as a person types it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from reasontrain.bench import tables
from reasontrain.bench.case import BenchCase, BenchMachine
from reasontrain.bench.record import read
from reasontrain.cli import main
from reasontrain.models import ModelSettings
from tests.bench.toys import DecodeInputs, row


@pytest.fixture(autouse=True)
def _a_toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """One table of one row that takes no time to speak of."""
    clock = DecodeInputs()
    toy = row(clock.variant("we", [1.0]), clock.variant("they", [1.0]))
    monkeypatch.setattr(tables, "TABLES", {"toys": lambda machine: [toy]})


def test_a_record_a_picture_and_a_page_are_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "records"
    assert (
        main(
            ["bench", "toys", "--runs", "4", "--threads", "1", "--device", "cpu", "--out", str(out)]
        )
        == 0
    )
    said = capsys.readouterr().out
    assert said.startswith("toys toy: nothing\n")
    assert said.endswith(f"wrote {out / 'README.md'}\n")
    assert sorted(path.name for path in out.iterdir()) == [
        "README.md",
        "toys-cpu.json",
        "toys-cpu.svg",
    ]
    found = read(out / "toys-cpu.json")
    assert (found.runs, found.quick, len(found.rows[0].subject.seconds)) == (4, False, 4)
    assert "![ratios of toys](toys-cpu.svg)" in (out / "README.md").read_text(encoding="utf-8")


def test_each_number_of_threads_is_a_row_and_a_model_has_its_own_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = DecodeInputs()
    toy = row(clock.variant("we", [1.0]), clock.variant("they", [1.0]))
    machines = []

    def rows(machine: BenchMachine) -> list[BenchCase]:
        machines.append(machine)
        return [toy]

    monkeypatch.setattr(tables, "PRETRAINED", {"toys": rows})
    options = ["--threads", "1", "2", "--model", "owner/Model", "--dtype", "bfloat16"]
    assert main(["bench", "toys", *options, "--device", "cpu", "--out", str(tmp_path)]) == 0
    found = read(tmp_path / "toys-cpu-model-bfloat16.json")
    assert [each.threads for each in found.rows] == [1, 2]
    assert (found.model, found.dtype) == ("owner/Model", "bfloat16")
    assert machines[0].model == ModelSettings(path="owner/Model", dtype="bfloat16")


def test_a_quick_run_times_three_times_at_most(tmp_path: Path):
    for runs, timed in ((9, 3), (2, 2)):
        assert (
            main(
                [
                    "bench",
                    "all",
                    "--quick",
                    "--runs",
                    str(runs),
                    "--device",
                    "cpu",
                    "--out",
                    str(tmp_path),
                ]
            )
            == 0
        )
        found = read(tmp_path / "toys-cpu.json")
        assert (found.runs, found.quick) == (timed, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["tosy"], "there is no table 'tosy'; choose from toys, or all"),
        (["toys", "--row", "yot"], "there is no case 'yot' in toys; the cases are: toy"),
        (["toys", "--runs", "0"], "--runs and --threads must be at least 1"),
        (["toys", "--threads", "2", "0"], "--runs and --threads must be at least 1, got 5 and 0"),
        (["toys", "--device", "cuda"], "torch sees no GPU here"),
        (["toys", "--dtype", "bfloat16"], "--dtype is for a pre-trained model; give --model too"),
        (["toys", "--teacher", "x"], "--teacher is for a pre-trained model; give --model too"),
        (["toys", "--data", __file__], "is no folder; a file of problems needs --model"),
        (["toys", "--data", "nowhere", "--model", "x"], "--data nowhere does not exist"),
        (["toys", "--model", "x"], "--model: the table toys runs no model; choose from sample"),
    ],
)
def test_mistakes_are_one_sentence(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["bench", *arguments, "--out", str(tmp_path / "none")]) == 2
    found = capsys.readouterr().err
    assert said in found
    assert found.count("\n") == 1
    assert not (tmp_path / "none").exists()
