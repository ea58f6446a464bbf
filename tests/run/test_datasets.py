"""The suites of a recipe read the same files as those of `reasontrain evaluate`."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from reasontrain.evaluation.suites import suite as named_suite
from reasontrain.models.description import describe
from reasontrain.models.settings import ModelSettings
from reasontrain.recipe import Recipe, Suite, read_recipe
from reasontrain.run.datasets import encode_suite
from reasontrain.tasks import Grader
from reasontrain.tasks.gsm8k import Gsm8k
from reasontrain.types import UserError

ROW = json.dumps({"problem": "2+2?", "answer": "4"})
HUB = Suite(name="x", file="x.jsonl", task=Gsm8k(hub="nobody/none", instruction=""))


def recipe() -> Recipe:
    return read_recipe(Path("recipes/tiny/grpo.yaml"), [])


def read(suite: Suite) -> tuple[str, ...]:
    """The ids and the source's file of the problems that a run would evaluate."""
    with Grader(num_workers=1) as grader:
        encoded = encode_suite(
            suite, recipe(), describe(ModelSettings(path="testbed:student")), grader
        )
    return tuple(prompt.problem.source for prompt in encoded.prompts)


def test_a_recipes_suite_reads_the_folder_that_evaluate_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text(ROW)
    monkeypatch.setenv("REASONTRAIN_DATA", str(tmp_path))
    assert read(HUB) == (f"{file}, line 1",)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert read(replace(HUB, sha256=digest)) == (f"{file}, line 1",)
    with pytest.raises(UserError, match=r"suite x was made for another x\.jsonl than"):
        read(replace(HUB, sha256="0" * 64))
    with pytest.raises(UserError, match=r"needs .*y\.jsonl, which does not exist; name the folder"):
        read(replace(HUB, file="y.jsonl"))
    own = tmp_path / "own.jsonl"
    own.write_text(ROW)
    assert read(Suite(name="own", task=Gsm8k(path=str(own)))) == (f"{own}, line 1",)
    monkeypatch.setenv("REASONTRAIN_DATA", str(file))
    with pytest.raises(UserError, match=r"x\.jsonl is not a folder; --data and REASONTRAIN_DATA"):
        read(HUB)


def test_without_the_variable_the_suites_own_source_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text(ROW)
    of_file = Suite(name="x", file="x.jsonl", task=Gsm8k(path=str(file)))
    monkeypatch.setenv("REASONTRAIN_DATA", "")
    assert read(of_file) == (f"{file}, line 1",)
    monkeypatch.delenv("REASONTRAIN_DATA")
    assert read(of_file) == (f"{file}, line 1",)
    assert named_suite("gsm8k", [], None).task == Gsm8k(
        hub="openai/gsm8k", subset="main", split="test"
    )
