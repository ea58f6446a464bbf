"""The harness's answers to the prompts of an evaluation, as an evaluation of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reasontrain.cli import main as reasontrain
from tests.docs.harness_answers import main


def test_the_harness_has_a_row_of_its_own_beside_the_evaluation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", "testbed:student", "--suite", "arithmetic", "--dtype", "float32"]
    command += ["--set", "task.num_problems=4", "sampling.temperature=0", "num_samples=1"]
    assert reasontrain([*command, "--out", str(tmp_path / "ours")]) == 0
    evaluated, out = tmp_path / "ours" / "testbed-student", tmp_path / "harness"
    capsys.readouterr()
    assert main(["testbed:student", str(evaluated), str(out), "--batch-size", "3"]) == 0
    line = capsys.readouterr().out.splitlines()[0]
    assert line.startswith("arithmetic: 4 of 4 texts are equal; right are ")
    reports = [json.loads((folder / "report.json").read_text()) for folder in (evaluated, out)]
    assert reports[1]["model"] == "testbed:student (lm-evaluation-harness)"
    assert reports[0]["suites"] == reports[1]["suites"]
    assert (evaluated / "arithmetic.jsonl").read_text() == (out / "arithmetic.jsonl").read_text()
    assert reasontrain(["leaderboard", str(evaluated), str(out), "--out", str(tmp_path)]) == 0
    assert "testbed:student (lm-evaluation-harness)" in (tmp_path / "index.html").read_text()


def test_an_evaluation_that_is_not_greedy_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    suite = {"suite": "a", "asked": {"name": "a", "task": {"kind": "arithmetic"}}}
    suite["asked"] |= {"sampling": {"temperature": 0.6}}
    (tmp_path / "report.json").write_text(json.dumps({"dtype": "float32", "suites": [suite]}))
    with pytest.raises(SystemExit, match="2"):
        main(["testbed:student", str(tmp_path), str(tmp_path / "out")])
    assert "a: the harness answers greedily, once per problem" in capsys.readouterr().err
