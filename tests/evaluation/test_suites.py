"""Suites by name and by file: what they are called, whose data they take, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reasontrain.evaluation.suites import suite
from reasontrain.tasks import Gsm8k, MathTask
from reasontrain.types import UserError


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("my data.jsonl", "my-data"),
        ("math.v2.ndjson", "math.v2"),
        ("(new) räk&na.parquet", "new-räk-na"),
        ("-x-.jsonl", "x"),
        ("???.jsonl", "problems"),
    ],
)
def test_a_file_of_problems_is_a_suite_with_a_name_for_files(file: str, name: str) -> None:
    found = suite(f"some folder/{file}", [], None)
    assert (found.name, found.task) == (name, MathTask(path=f"some folder/{file}"))


def test_the_folder_of_data_is_taken_unless_the_user_says_otherwise(tmp_path: Path) -> None:
    local = tmp_path / "gsm8k_test.jsonl"
    local.write_text(json.dumps({"problem": "2+2?", "answer": "4"}))

    def asked(*overrides: str, data: Path | None = tmp_path) -> tuple[str | None, str | None]:
        task = suite("gsm8k", overrides, data).task
        assert isinstance(task, Gsm8k | MathTask)
        return task.path, task.hub

    assert asked() == (str(local), None)
    assert asked("task.path=mine.jsonl") == ("mine.jsonl", None)
    assert asked("task.path=mine.jsonl", data=None) == ("mine.jsonl", None)
    assert asked("task.path=mine.jsonl", data=tmp_path / "nowhere") == ("mine.jsonl", None)
    assert asked("task.hub=mine/gsm8k") == (None, "mine/gsm8k")
    assert asked("task={kind: math, path: mine.jsonl}") == ("mine.jsonl", None)
    assert asked("task.path=null") == (None, "openai/gsm8k")
    assert asked("task.instruction=Go.") == (str(local), None)


def test_more_answers_than_there_are_cannot_be_looked_at() -> None:
    assert suite("gsm8k", ["num_samples=4", "pass_at=[1, 4]"], None).pass_at == (1, 4)
    for name in ("gsm8k", "x.jsonl"):
        with pytest.raises(UserError, match="pass_at 8 needs as many samples, and num_samples is 4"):
            suite(name, ["num_samples=4", "pass_at=[1, 8]"], None)
