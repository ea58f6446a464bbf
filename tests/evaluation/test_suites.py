"""Suites by name and by file: what they are called, whose data they take, and what is refused."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path

import pytest

from reasontrain.data.prompts import PromptSettings
from reasontrain.evaluation.suites import suite
from reasontrain.tasks import Gsm8k, MathTask
from reasontrain.tasks.grading import last_boxed
from reasontrain.types import Problem, UserError


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
        task = suite("gsm8k", ["sha256=null", *overrides], data).task
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
        with pytest.raises(
            UserError, match="pass_at 8 needs as many samples, and num_samples is 4"
        ):
            suite(name, ["num_samples=4", "pass_at=[1, 8]"], None)


BUILT_IN = {"gsm8k", "math500", "aime24", "aime25", "aime26", "amc23", "olympiadbench", "minerva"}


@pytest.mark.parametrize("name", sorted(path.stem for path in Path("eval/suites").glob("*.yaml")))
def test_shipped_suites_say_what_they_measure(name: str) -> None:
    found = suite(name, [], None)
    assert (found.name, found.version) == (name, 1)
    assert found.prompt is not None
    assert (
        found.prompt.style == "chat"
    )  # a model without a template is refused, not asked in another way
    if name in BUILT_IN:
        assert isinstance(found.task, Gsm8k | MathTask)
        assert found.task.hub
        assert re.fullmatch(r"[0-9a-f]{64}", found.sha256 or "")
        assert found.answer_format == ("any" if name == "gsm8k" else "marked")
        assert (found.num_samples > 1) == bool(found.pass_at) == (found.sampling.temperature > 0)
    for style in ("base", "instruct", "thinking"):
        if name in BUILT_IN:
            assert suite(name, [], None, style).task is not None


def test_the_eight_suites_are_there() -> None:
    assert {path.stem for path in Path("eval/suites").glob("*.yaml")} >= BUILT_IN


def test_prompts_of_the_suite_yield_to_it_those_of_the_user_do_not_and_his_settings_win(
    tmp_path: Path,
) -> None:
    style = tmp_path / "mine.yaml"
    style.write_text(
        "prompt: {style: plain, template: 'Q: {problem}'}\nsampling: {temperature: 0.5, top_k: 7}\n"
    )
    own = tmp_path / "own.yaml"
    own.write_text(
        f"name: own\ntask: {{kind: math, path: x.jsonl}}\nprompts: {style}\nsampling: "
        f"{{temperature: 0.9}}\n"
    )
    found = suite(str(own), [], None)
    assert (found.sampling.temperature, found.sampling.top_k) == (0.9, 7)
    found = suite(str(own), [], None, str(style))
    assert (found.sampling.temperature, found.sampling.top_k) == (0.5, 7)
    found = suite(str(own), ["sampling.temperature=0.1"], None, str(style))
    assert (found.sampling.temperature, found.sampling.top_k) == (0.1, 7)
    assert found.prompt == PromptSettings(style="plain", template="Q: {problem}")
    assert suite("x.jsonl", [], None, str(style)).prompt == found.prompt


def test_base_models_see_worked_examples_and_stop_before_a_problem_of_their_own() -> None:
    found = suite("math500", [], None, "base")
    assert isinstance(found.task, MathTask)
    assert (found.task.instruction, found.sampling.stop) == ("", ("\n\nProblem:",))
    assert found.prompt is not None
    said = found.prompt.prompt_of(Problem(id="1", prompt="What is $1+1$?"))
    assert isinstance(said, str)
    assert said.endswith("\n\nProblem:\nWhat is $1+1$?\n\nSolution:")
    solutions = said.split("Solution:\n")[1:]
    assert [last_boxed(text.partition("\n\nProblem:")[0]) for text in solutions] == [
        "3",
        r"-\frac{1}{2}, 3",
        r"\frac{1}{9}",
        "150",
    ]


def test_a_style_that_is_not_there_and_data_that_are_others(tmp_path: Path) -> None:
    with pytest.raises(
        UserError,
        match="there is no prompt style 'bsae'; use one of: base, instruct, thinking; or a path to "
        "a YAML file",
    ):
        suite("gsm8k", [], None, "bsae")
    (tmp_path / "gsm8k_test.jsonl").write_text(json.dumps({"problem": "2+2?", "answer": "4"}))
    with pytest.raises(
        UserError, match=r"suite gsm8k was made for another gsm8k_test.jsonl than .*--set sha256="
    ):
        suite("gsm8k", [], tmp_path)
    digest = hashlib.sha256((tmp_path / "gsm8k_test.jsonl").read_bytes()).hexdigest()
    assert suite("gsm8k", [f"sha256={digest}"], tmp_path).sha256 == digest
    assert suite("gsm8k", ["sha256=null"], tmp_path).sha256 == digest


DATA = Path(
    os.environ.get("REASONTRAIN_DATA", Path(__file__).parents[3] / "shared" / "data" / "benchmarks")
)


@pytest.mark.skipif(not DATA.is_dir(), reason="the data folder is not on this machine")
@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_the_data_are_those_that_the_suite_names(name: str) -> None:
    task = suite(name, [], DATA).task
    assert isinstance(task, Gsm8k | MathTask)
    assert all(problem.answer for problem in task.problems())
