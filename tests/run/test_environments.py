"""Runs with an environment: what they measure and keep, and that a resumed one is the same."""

from __future__ import annotations

import json
import logging
import pickle
from pathlib import Path

import pytest

from reasontrain.environments.processes import environment_file
from reasontrain.recipe import Recipe, read_recipe
from reasontrain.recipe.validation import validation_errors
from reasontrain.run.build import run_context, warn_of_missing_environments
from reasontrain.run.directory import RunDirectory
from reasontrain.run.environments import check_environments, environments_of
from reasontrain.types import TokenKind, UserError

GRPO = Path(__file__).parents[2] / "recipes" / "tiny" / "grpo.yaml"
CODE = """
import random

class Dice:
    def reset(self, problem, seed):
        self.random = random.Random(seed)
        self.turns = 0

    def step(self, text):
        self.turns += 1
        return f" {self.random.randrange(100)} ", float(len(text)), self.turns == 3
"""


def recipe_of(tmp_path: Path, name: str, *overrides: str) -> Recipe:
    """The student writes `=` in every line, which ends a turn."""
    code = tmp_path / "dice.py"
    if not code.exists():
        code.write_text(CODE)
    dice = f"{{kind: python, path: {code}, name: Dice, role: inline, stop: ['='], workers: 2}}"
    suite = (
        "{name: dice, task: {kind: arithmetic, split: test, num_problems: 4}, "
        f"sampling: {{max_tokens: 30, environment: {dice}}}}}"
    )
    return read_recipe(
        GRPO,
        [
            f"name={name}",
            f"out={tmp_path / 'out'}",
            "steps=2",
            "task.num_problems=64",
            "sample.max_tokens=40",
            "sample.group_size=2",
            f"sample.environment={dice}",
            "learn.rollouts_per_step=4",
            "learn.warmup_steps=0",
            "learn.schedule_steps=2",
            f"evaluate.suites=[{suite}]",
            "evaluate.before=false",
            "evaluate.every=0",
            "track.tensorboard=false",
            *overrides,
        ],
    )


def trained(recipe: Recipe) -> RunDirectory:
    with run_context(recipe) as context:
        return context.run(lambda step, stats: None)


def measured(directory: RunDirectory) -> list[dict[str, float]]:
    """The metrics of the steps, without times, rates and memory."""
    return [
        {
            name: value
            for name, value in row.items()
            if not name.startswith(("time", "mfu", "hfu", "memory")) and "per_s" not in name
        }
        for row in directory.read_metrics()
    ]


def test_a_run_with_an_environment_and_one_that_was_resumed(tmp_path: Path) -> None:
    whole = trained(recipe_of(tmp_path, "whole"))
    rows = measured(whole)
    assert len(rows) == 2
    for row in rows:
        assert row["tool_use_share"] == 1
        assert 2 <= row["turns_mean"] <= 3
        own_tokens = 4 * (row["response_tokens_mean"] - row["tool_tokens_mean"])
        assert row["sampled_tokens"] == row["trained_tokens"] == pytest.approx(own_tokens)
        assert row["reward_mean"] > 3  # characters of the turns, up to the last `=`
        assert row["reward_errors"] == 0
    tokens = json.loads(whole.tokens_at(1).read_text().splitlines()[0])
    tools = [
        text
        for text, kind in zip(tokens["tokens"], tokens["kind"], strict=True)
        if kind == TokenKind.TOOL
    ]
    assert tools[0] == " "
    assert "".join(tools).split()[0].isdigit()
    assert (whole.path / "rewards" / "environment.py").read_text() == CODE
    assert (whole.path / "rewards" / "environment-dice.py").read_text() == CODE
    (evaluation,) = whole.read_evaluations()
    assert evaluation["metrics"]["accuracy"]["value"] == 1  # every reward is at least 1

    trained(recipe_of(tmp_path, "parts", "steps=1"))
    parts = trained(recipe_of(tmp_path, "parts"))
    assert measured(parts) == rows
    (tmp_path / "dice.py").write_text(CODE + "\n# changed")
    with pytest.raises(UserError, match=r"environment: .*dice\.py"):
        trained(recipe_of(tmp_path, "parts", "steps=3"))


def test_a_file_that_cannot_be_loaded_is_refused_before_the_run(tmp_path: Path) -> None:
    (tmp_path / "dice.py").write_text("class Dice:\n    def step(self): return 1 +\n")
    with pytest.raises(UserError, match=r"dice\.py, line 2: the file cannot be loaded: Syntax"):
        trained(recipe_of(tmp_path, "broken"))
    assert not (tmp_path / "out" / "broken" / "recipe.yaml").exists()


def test_settings_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    def errors(*overrides: str) -> list[str]:
        return validation_errors(recipe_of(tmp_path, "wrong", *overrides))

    with pytest.raises(UserError, match="`role: inline` needs a text that ends a turn"):
        recipe_of(tmp_path, "wrong", "sample.environment.stop=[]")
    with pytest.raises(UserError, match="`thought` and `environment` cannot be combined"):
        recipe_of(tmp_path, "wrong", "sample.thought={kind: hard}")
    with pytest.raises(UserError, match=r"sample\.environment\.role: `tool` is a turn of a chat"):
        recipe_of(tmp_path, "wrong", "sample.environment.role=tool", "prompt.style=plain")
    with pytest.raises(UserError, match="or an environment, returns its own rewards"):
        recipe_of(tmp_path, "wrong", "reward.right=2")
    assert errors("sample.environment.reward=task", "reward.right=2") == []


def test_a_suite_without_the_environment_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    changes = "evaluate.suites.0.sampling.environment=null"
    with caplog.at_level(logging.WARNING):
        warn_of_missing_environments(recipe_of(tmp_path, "quiet"))
        assert not caplog.messages
        warn_of_missing_environments(recipe_of(tmp_path, "quiet", changes))
    assert "suite dice has no `sampling.environment`" in caplog.text


def test_processes_run_the_file_that_the_driver_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Equal settings of training and a suite are two objects, and each is sent somewhere."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dice.py").write_text(CODE)
    environment = "{kind: python, path: dice.py, name: Dice, role: inline, stop: ['=']}"
    recipe = read_recipe(
        GRPO,
        [
            f"sample.environment={environment}",
            f"evaluate.suites.0.sampling.environment={environment}",
        ],
    )
    check_environments(recipe)
    sent = pickle.loads(pickle.dumps(list(environments_of(recipe).values())))
    assert len(sent) == 2
    monkeypatch.chdir(tmp_path_factory.mktemp("worker"))
    (tmp_path / "dice.py").unlink()
    for settings in sent:
        file = environment_file(settings)
        assert (file.path, file.source) == (str(tmp_path / "dice.py"), CODE.encode())
