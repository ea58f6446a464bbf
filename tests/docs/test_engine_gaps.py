"""First differing tokens of two evaluations, with answers that are changed by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reasontrain.cli import main as reasontrain
from tests.docs.engine_gaps import main


def test_the_first_differing_token_is_listed_with_its_gap(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", "testbed:student", "--suite", "arithmetic", "--dtype", "float32"]
    command += ["--set", "task.num_problems=3", "--out"]
    for out in ("a", "b"):
        assert reasontrain([*command, str(tmp_path / out)]) == 0
    folders = [str(tmp_path / out / "testbed-student") for out in ("a", "b")]
    capsys.readouterr()
    assert main(["testbed:student", *folders, "--max-gap", "0"]) == 0
    assert "arithmetic: 3 of 3 answers are identical" in capsys.readouterr().out

    log = tmp_path / "b" / "testbed-student" / "arithmetic.jsonl"
    answers = [json.loads(line) for line in log.read_text().splitlines()]
    start, _, rest = answers[1]["response"].partition("=")
    answers[1]["response"] = f"{start}+{rest}"
    answers[2] |= {"response": answers[2]["response"][:-1], "truncated": True}
    log.write_text("".join(f"{json.dumps(answer)}\n" for answer in answers))
    assert main(["testbed:student", *folders, "--max-gap", "1e-4"]) == 1
    title, replaced, cut, largest = capsys.readouterr().out.splitlines()
    assert title == "arithmetic: 1 of 3 answers are identical"
    assert f"{answers[1]['problem']} sample 0, token " in replaced
    assert "'=' -0.0" in replaced  # what greedy decoding chose is likely
    assert "'+' -" in replaced
    assert "(encoded again" not in replaced
    assert "(encoded again, the text has other tokens)" in cut
    assert float(largest.split()[2]) > 1
