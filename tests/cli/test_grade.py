"""`reasontrain grade` as a person types it: files and pipes, in order, while they are read."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from reasontrain.cli import main

ROWS = [
    {"gold": r"\frac{1}{2}", "prediction": r"so \boxed{0.5}", "id": 7, "tags": ["a", None]},
    {"gold": 12, "prediction": "The answer is 13."},
    {"gold": "x+1", "prediction": r"\boxed{1+x}", "correct": "was here", "name": "Åsa \ud800"},
    {"gold": "3", "prediction": r"\boxed{9^{9^9}}"},
    {"gold": "5", "prediction": "Putting this in, we get 5"},
]
VERDICTS = [
    (True, "0.5", "exact"),
    (False, "13", "exact"),
    (True, "1+x", "symbolic"),
    (False, "9^{9^9}", "too large"),
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "answers.jsonl"
    path.write_text("\n\n".join(map(json.dumps, ROWS)))
    return path


def verdicts(said: str) -> list[tuple[bool, str, str]]:
    return [
        (line["correct"], line["extracted"], line["reason"])
        for line in map(json.loads, said.splitlines())
    ]


def test_lines_come_back_in_order_with_what_they_had(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["grade", str(file), "--workers", "1", "--answer-format", "any"]) == 0
    said = capsys.readouterr()
    assert verdicts(said.out) == [*VERDICTS, (True, "5", "exact")]
    for row, line in zip(ROWS, map(json.loads, said.out.splitlines()), strict=True):
        assert {**row, "correct": line["correct"]}.items() <= line.items()
    assert said.err == (
        "graded 5 lines: wrong by exact 1, wrong by too large 1, correct by exact 2, "
        "correct by symbolic 1\n"
    )


def test_explained_verdicts_have_two_more_fields(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text(json.dumps({"gold": "#### 1,700", "prediction": "\\boxed{1700}"}))
    assert main(["grade", str(path), "--workers", "1", "--explain"]) == 0
    (line,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert (line.pop("gold_read"), line.pop("rule")) == ("1700", "same text")
    assert main(["grade", str(path), "--workers", "1"]) == 0
    assert [line] == [json.loads(row) for row in capsys.readouterr().out.splitlines()]


def test_an_answer_that_nothing_marks_counts_only_where_it_may(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["grade", str(file), "--workers", "1", "--answer-format", "marked"]) == 0
    assert verdicts(capsys.readouterr().out) == [*VERDICTS, (False, "", "no answer")]


def test_what_a_text_does_not_show_is_read_from_other_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = {"gold": 12, "prediction": "The answer is 12"}
    rows = [
        {**said, "truncated": False, "unfinished": None},
        {**said, "truncated": True},
        {**said, "unfinished": True},
        {**said, "prompt": "3*4?\n<think>\n"},
        {**said, "prompt": ["3*4?"]},
        {**said, "truncated": "yes"},
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    assert main(["grade", str(path), "--workers", "1"]) == 2
    output, error = capsys.readouterr()
    assert [reason for _, _, reason in verdicts(output)] == [
        "exact",
        "no answer",
        "unfinished",
        "unfinished",
        "exact",
    ]
    assert "line 6: column 'truncated' is 'yes'; expected true or false" in error


def test_standard_input_is_read_where_no_file_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for words in ([], ["-"]):
        monkeypatch.setattr(
            sys, "stdin", io.TextIOWrapper(io.BytesIO(json.dumps(ROWS[1]).encode()))
        )
        assert main(["grade", *words]) == 0
        assert verdicts(capsys.readouterr().out) == VERDICTS[1:2]


def test_no_line_is_no_mistake(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\n")))
    assert main(["grade"]) == 0
    assert capsys.readouterr() == ("", "graded 0 lines: there are none\n")


def test_verdicts_are_written_before_the_input_ends() -> None:
    command = [sys.executable, "-m", "reasontrain.cli", "grade", "-"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for row, verdict in zip(ROWS[:2], VERDICTS, strict=False):
            process.stdin.write(json.dumps(row).encode() + b"\n")
            process.stdin.flush()
            assert verdicts(process.stdout.readline().decode()) == [
                verdict
            ]  # hangs where lines wait for later ones
        process.stdin.close()
        assert (process.stdout.read(), process.wait()) == (b"", 0)


def test_a_reader_that_leaves_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "many.jsonl"
    path.write_text(json.dumps({**ROWS[1], "filler": "x" * 5_000}) + "\n")
    path.write_text(path.read_text() * 500)
    command = f"{sys.executable} -m reasontrain.cli grade {path} | head -n 1"
    run = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        capture_output=True,
        text=True,
        env=os.environ.copy(),
    )
    assert (run.returncode, len(run.stdout.splitlines()), "Error" in run.stderr) == (0, 1, False), (
        run.stderr
    )


REFUSED = {
    "no file": (["nowhere.jsonl"], None, "there is no file nowhere.jsonl; expected JSON lines"),
    "no prediction": (
        [],
        {"gold": "1", "answer": "1"},
        "standard input, line 2: no `prediction` (it has: gold, answer)",
    ),
    "no gold": ([], {"prediction": "1"}, "standard input, line 2: no `gold` (it has: prediction)"),
    "a prediction that is no text": (
        [],
        {"gold": "1", "prediction": ["1"]},
        "line 2: column 'prediction' holds list",
    ),
    "no object": ([], [1], "line 2: expected a JSON object, found list"),
    "no time": (
        ["--timeout-s", "0"],
        None,
        "--timeout-s must be more than 0 and less than a day, got 0",
    ),
    "endless time": (
        ["--timeout-s", "inf"],
        None,
        "--timeout-s must be more than 0 and less than a day, got inf",
    ),
    "nobody": (["--workers", "0"], None, "--workers must be at least 1, got 0"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_input_is_one_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    words, row, message = REFUSED[case]
    written = "\n".join(map(json.dumps, [ROWS[1], row]))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(written.encode())))
    assert main(["grade", *words]) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert said.err.count("\n") == 1
    assert verdicts(said.out) == (VERDICTS[1:2] if row else [])  # the lines before it are written
