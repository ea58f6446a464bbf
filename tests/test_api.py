"""The public surface: names, signatures, and what they do in this process."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import reasontrain
from reasontrain.recipe import Recipe, RecipeError
from reasontrain.types import UserError

ROOT = Path(__file__).resolve().parents[1]
TINY = ROOT / "recipes/tiny/tip.yaml"
SMALL = ("steps=2", "learn.rollouts_per_step=4", "learn.warmup_steps=0", "evaluate=null")

SURFACE = {
    "load_recipe": "(path: 'str | Path', overrides: 'Sequence[str]' = ()) -> 'Recipe'",
    "train": "(recipe: 'str | Path | Recipe', overrides: 'Sequence[str]' = ()) -> 'Path'",
    "evaluate": (
        "(model: 'str | Path', suites: 'Sequence[str]', *, overrides: 'Sequence[str]' = (), "
        "data: 'str | Path | None' = None, prompt: 'str | None' = None, "
        "out: 'str | Path' = 'out/evaluations', limit: 'int | None' = None, "
        "dtype: 'DType | None' = None, seed: 'int' = 0, "
        "engine: 'str | None' = None, "
        "engine_settings: 'Mapping[str, int | float] | None' = None, base: 'str | None' = None, "
        "workers: 'int | None' = None, endpoint: 'str | None' = None, "
        "concurrency: 'int | None' = None, tokenizer: 'str | None' = None, "
        "restart: 'bool' = False) -> 'dict[str, object]'"
    ),
}
"""What other people's code relies on; a change here is a change for them."""

ALGORITHMS = {
    "advantages": ("GroupNormalized", "LeaveOneOut", "MeanCentred", "NoAdvantage"),
    "loss_aggregation": (
        "pair_mean",
        "response_token_mean",
        "sampled_token_mean",
        "seq_mean_token_mean",
        "seq_mean_token_sum",
        "seq_mean_token_sum_norm",
        "token_mean",
    ),
    "token_selection.scores.soft_or": ("overconfidence", "soft_or"),
    "token_selection.scores.excess_loss": ("combined", "retrospective"),
    "token_selection.scores.normalise": ("quantile", "span_of"),
    "token_selection.scores.quadrants": ("quadrants", "shares"),
    "token_selection.scores.weight_mass": ("spread",),
}
"""Modules of `reasontrain.algo` -> functions that docs/python.md names as public."""


def test_the_surface_is_what_it_was() -> None:
    assert {*reasontrain.__all__} == {"__version__", *SURFACE}
    assert {*reasontrain.__all__} <= {*dir(reasontrain)}
    signatures = {name: str(inspect.signature(getattr(reasontrain, name))) for name in SURFACE}
    assert signatures == SURFACE


def test_every_parameter_is_documented() -> None:
    for name in SURFACE:
        function = getattr(reasontrain, name)
        text = inspect.getdoc(function) or ""
        missing = [p for p in inspect.signature(function).parameters if f"    {p}: " not in text]
        assert missing == [], name


@pytest.mark.parametrize("module", ALGORITHMS)
def test_the_functions_of_algo_are_there_and_documented(module: str) -> None:
    found = import_module(f"reasontrain.algo.{module}")
    page = (ROOT / "docs/python.md").read_text()
    assert f"`reasontrain.algo.{module}`" in page
    for name in ALGORITHMS[module]:
        assert inspect.getdoc(getattr(found, name)), name
        assert name in page or name == "NoAdvantage", name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'trian'"):
        _ = reasontrain.trian  # type: ignore[attr-defined]


def test_a_recipe_is_loaded_with_overrides_or_refused_with_every_error() -> None:
    recipe = reasontrain.load_recipe(str(TINY), ["steps=7"])
    assert isinstance(recipe, Recipe)
    assert recipe.steps == 7
    with pytest.raises(RecipeError, match=r"(?s)learn\.lrr.*step:"):
        reasontrain.load_recipe(TINY, ["step=7", "learn.lrr=1"])
    with pytest.raises(UserError, match=r"nothing\.yaml"):
        reasontrain.load_recipe("nothing.yaml")


def test_train_runs_a_file_and_a_recipe_alike(tmp_path: Path) -> None:
    by_file = reasontrain.train(TINY, [*SMALL, f"out={tmp_path}", "name=file"])
    assert by_file == tmp_path / "file"
    recipe = reasontrain.load_recipe(TINY, SMALL)
    by_recipe = reasontrain.train(recipe, [f"out={tmp_path}", "name=recipe"])
    steps = [
        [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        for run in (by_file, by_recipe)
    ]
    assert [len(each) for each in steps] == [2, 2]
    for key in ("loss", "grad_norm"):
        assert [line[key] for line in steps[0]] == [line[key] for line in steps[1]]
    assert (by_recipe / "final/model.safetensors").exists()
    assert (by_recipe / "report.html").exists()
    with pytest.raises(RecipeError, match=r"learn\.lrr"):
        reasontrain.train(recipe, ["learn.lrr=1"])


def test_evaluate_returns_the_report(tmp_path: Path) -> None:
    report = reasontrain.evaluate(
        "testbed:student",
        ["arithmetic"],
        limit=4,
        out=tmp_path,
        overrides=["sampling.max_tokens=8"],
    )
    (suite,) = report["suites"]
    assert (suite["suite"], suite["num_problems"]) == ("arithmetic", 4)
    (file,) = tmp_path.glob("*/report.json")
    assert json.loads(file.read_text()) == report
    with pytest.raises(UserError, match="no suite 'nothing'"):
        reasontrain.evaluate("testbed:student", ["nothing"], out=tmp_path)


def test_loading_a_recipe_starts_no_engine() -> None:
    code = (
        "import sys, reasontrain; reasontrain.load_recipe('recipes/tiny/tip.yaml'); "
        "print(sorted({'ray', 'deepspeed', 'vllm'} & {*sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
