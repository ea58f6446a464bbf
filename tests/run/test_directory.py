"""The names of a run's files stand in one class, and what it writes it reads."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from reasontrain.recipe import Recipe, YamlValue, build
from reasontrain.run.build import _own_rewards
from reasontrain.run.directory import EvaluationDirectory, RunDirectory, step_of
from reasontrain.types import UserError

ROOT = Path(__file__).resolve().parents[2]
HOME = ROOT / "reasontrain/run/directory.py"
RUN = RunDirectory(Path("out/tip"))
FILES = {
    path.name
    for path in (
        RUN.recipe,
        RUN.environment,
        RUN.metrics,
        RUN.evaluations,
        RUN.report_page,
        RUN.report_numbers,
    )
}
FOLDERS = {
    path.name
    for path in (
        RUN.tokens,
        RUN.answers("s", 0).parent,
        RUN.checkpoints,
        RUN.final,
        RUN.logs,
        RUN.stages,
        RUN.tensorboard,
    )
}


def names_of_a_run(source: str) -> Iterator[str]:
    """Names of a run's files in code: a file's in any string but a docstring, a folder's where a
    path is put together.
    """
    tree = ast.parse(source)
    prose = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        match node:
            case ast.Constant(value=str(text)) if id(node) not in prose:
                yield from (name for name in FILES if name in text)
            case ast.BinOp(op=ast.Div(), right=ast.Constant(value=str(text))) if text in FOLDERS:
                yield text
            case ast.BinOp(op=ast.Div(), right=ast.JoinedStr(values=[*parts])):
                texts = [part.value for part in parts if isinstance(part, ast.Constant)]
                yield from (text for text in texts if text.endswith("step-"))


def test_the_names_are_those_of_the_guide() -> None:
    assert str(RUN) == "out/tip"
    assert {
        path.relative_to(RUN.path).as_posix()
        for path in (
            RUN.recipe,
            RUN.environment,
            RUN.metrics,
            RUN.evaluations,
            RUN.tokens_at(3),
            RUN.nonfinite_tokens_at(4),
            RUN.answers("heldout", 5),
            RUN.checkpoint_at(6),
            RUN.final,
            RUN.report_page,
            RUN.report_numbers,
            RUN.lens_page,
            RUN.logs,
            RUN.stages,
            RUN.tensorboard,
        )
    } == {
        "recipe.yaml",
        "environment.json",
        "metrics.jsonl",
        "evaluations.jsonl",
        "tokens/step-3.jsonl",
        "tokens/nonfinite-step-4.jsonl",
        "answers/heldout-step-5.jsonl",
        "checkpoints/step-6",
        "final",
        "report.html",
        "report.json",
        "lens/index.html",
        "logs",
        "stages",
        "tensorboard",
    }
    model = EvaluationDirectory(Path("out/qwen"))
    assert (model.report.name, model.logs.name) == ("report.json", "logs")
    assert model.answers("aime24").name == "aime24.jsonl"


def test_what_is_written_is_read(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    assert run.is_empty()
    run.path.mkdir()
    assert run.is_empty()
    assert list(run.read_metrics()) == list(run.read_evaluations()) == []
    run.append_metrics(0, {"loss": 1.5})
    run.append_metrics(1, {"loss": 1.25})
    run.append_evaluation(0, {"suite": "s", "metrics": {"accuracy": {"value": 0.5}}})
    run.write_environment({"device": "cpu", "versions": {"torch": "2"}})
    run.write_recipe("name: run\n")
    assert not run.is_empty()
    assert [line["loss"] for line in run.read_metrics()] == [1.5, 1.25]
    assert [line["suite"] for line in run.read_evaluations()] == ["s"]
    assert run.read_environment() == {"device": "cpu", "versions": {"torch": "2"}}
    assert run.recipe.read_text() == "name: run\n"


def test_numbered_files_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    for step in (2, 10, 1):
        run.checkpoint_at(step).mkdir(parents=True)
        run.tokens.mkdir(exist_ok=True)
        run.tokens_at(step).touch()
    run.nonfinite_tokens_at(3).touch()
    (run.checkpoints / ".partial-step-11").mkdir()
    (run.checkpoints / "step-old").mkdir()
    assert list(run.token_files()) == [1, 2, 10]
    assert run.checkpoint_directories() == [(n, run.checkpoint_at(n)) for n in (10, 2, 1)]
    assert step_of(run.checkpoint_at(10)) == 10
    with pytest.raises(UserError, match="is not named as a checkpoint"):
        step_of(run.checkpoints / "step-old")


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ('read(run / "metrics.jsonl")', "metrics.jsonl"),
        ('f"{run} has no recipe.yaml"', "recipe.yaml"),
        ('where = run / "final"', "final"),
        ('where = run / f"step-{step}"', "step-"),
        ('where = run / "answers" / f"{suite}.jsonl"', "answers"),
    ],
)
def test_a_name_outside_of_its_class_is_noticed(source: str, name: str) -> None:
    assert list(names_of_a_run(source)) == [name]


def test_prose_and_other_words_are_no_names_of_files() -> None:
    assert list(names_of_a_run('"""Writes metrics.jsonl."""\nfinal = "final"\nx = a / b')) == []


def test_no_other_module_knows_a_name_of_a_runs_file() -> None:
    sources = sorted((ROOT / "reasontrain").rglob("*.py"))
    assert HOME in sources
    assert [
        f"{path.relative_to(ROOT)}: {name}"
        for path in sources
        if path != HOME and path != ROOT / "reasontrain/cli/arguments.py"
        for name in names_of_a_run(path.read_text(encoding="utf-8"))
    ] == []


def test_the_own_rewards_of_all_parts_of_a_recipe_are_kept(tmp_path: Path) -> None:
    tasks = {}
    for name in ("train", "suite", "stage"):
        (tmp_path / f"{name}.py").write_text(f"def score(problem, response): return '{name}'")
        tasks[name] = {
            "kind": "python",
            "path": str(tmp_path / f"{name}.py"),
            "function": "score",
            "problems_path": "problems.jsonl",
        }
    sampled = {"kind": "sample", "sample": {"group_size": 2, "max_tokens": 4}}
    content: dict[str, YamlValue] = {
        "name": "run",
        "steps": 1,
        "model": {"path": "testbed:student"},
        "task": tasks["train"],
        "sample": {"group_size": 2, "max_tokens": 4},
        "learn": {"lr": 1e-3, "rollouts_per_step": 8},
        "objective": {"kind": "grpo"},
        "advantage": {"kind": "group_normalized"},
        "loss_aggregation": "token_mean",
        "evaluate": {"suites": [{"name": "judged", "task": tasks["suite"]}, {"name": "held"}]},
        "stages": [
            {"name": "first", "task": tasks["stage"], **sampled},
            {"name": "done", "task": tasks["stage"] | {"path": "no_more.py"}, **sampled},
        ],
    }
    directory = RunDirectory(tmp_path / "run")
    for part, task in _own_rewards(build(Recipe, content, "test")).items():
        directory.write_reward_code(task.reward_file.source, part)
    kept = {
        str(path.relative_to(directory.path)): path.read_text().split("'")[1]
        for path in directory.path.rglob("*.py")
    }
    assert kept == {
        "reward.py": "train",
        "rewards/suite-judged.py": "suite",
        "rewards/stage-first.py": "stage",
    }
