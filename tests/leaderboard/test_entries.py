"""Rows out of folders."""

from __future__ import annotations

import json

import pytest
import yaml

from reasontrain.leaderboard.entries import read_entries
from reasontrain.types import UserError
from tests.leaderboard.conftest import single


def test_a_run_is_what_it_reached_last(make_run):
    (entry,) = read_entries(
        [make_run("a", {0: single("00"), 10: single("11"), 5: single("10")}, seed=3)]
    )
    (result,) = entry.results
    assert (result.evaluation.step, result.evaluation.metrics["accuracy"].value) == (10, 1.0)
    assert result.answers.name == "heldout-step-10.jsonl"
    assert [e.step for e in entry.history] == [0, 5, 10]
    assert entry.about == "step 10, seed 3"


def test_a_row_says_what_was_trained_and_how_far(make_run):
    run = make_run("a", {10: single("11")})
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    said = {
        "steps": 40,
        "model": {"path": "x/y"},
        "token_selection": {"kind": "tip"},
        "objective": {"kind": "distill"},
    }
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe | said))
    (entry,) = read_entries([run])
    assert entry.about == "x/y, tip, distill, step 10 of 40, seed 0"


def test_a_report_is_found_by_its_folder_or_by_itself(make_report):
    folder = make_report("Qwen/Qwen3-8B", {"s": single("10"), "t": single("1")})
    (entry,) = read_entries([folder])
    assert (entry.name, entry.slug, len(entry.results)) == ("Qwen/Qwen3-8B", "Qwen-Qwen3-8B", 2)
    assert read_entries([folder / "report.json"])[0].results == entry.results


def test_two_of_one_name_are_called_by_their_paths(make_run, tmp_path):
    first = make_run("a", {1: single("10")})
    (tmp_path / "other").mkdir()
    second = first.rename(tmp_path / "other" / "a")
    entries = read_entries([make_run("a", {1: single("10")}), second])
    assert [entry.slug for entry in entries] == ["a-1", "a-2"]
    assert entries[1].name == f"a ({second})"


def test_what_cannot_be_a_row_is_refused(make_run, make_report, tmp_path):
    run, report = make_run("a", {1: single("10")}), make_report("b", {"s": single("10")})
    faults = {
        (run, run): "is given twice",
        (tmp_path,): "holds no evaluation",
        (tmp_path / "absent",): "holds no evaluation",
    }
    for paths, fault in faults.items():
        with pytest.raises(UserError, match=fault):
            read_entries(paths)
    stated = json.loads((report / "report.json").read_text())
    (report / "report.json").write_text(json.dumps(stated | {"suites": stated["suites"] * 2}))
    with pytest.raises(UserError, match="states suite s twice"):
        read_entries([report])
    (report / "report.json").write_text("{")
    with pytest.raises(UserError, match="expected JSON"):
        read_entries([report])


def test_answers_of_unequal_number_are_refused(make_run):
    run = make_run("a", {1: single("10")})
    path = run / "answers/heldout-step-1.jsonl"
    path.write_text(path.read_text() + path.read_text().splitlines()[0] + "\n")
    with pytest.raises(UserError, match="different numbers of answers"):
        read_entries([run])
