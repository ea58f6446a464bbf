"""Old names in recipes: one line names the new key or value, and the exit code is 2."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from reasontrain.cli import main
from reasontrain.recipe import YamlValue, apply_overrides, read_yaml
from reasontrain.recipe.renamed import KEYS, VALUES

RECIPES = Path(__file__).resolve().parents[2] / "recipes/tiny"
SECTIONS = {
    "": "",
    "token_selection": "token_selection.",
    "rollout_filter": "rollout_filter.",
    "engine": "sample.engine.",
    "suites": "evaluate.suites.0.",
    "task": "task.",
}
"""Section of `KEYS` -> prefix of its keys in a recipe."""
VALUE_KEYS = {
    "token_selection": "token_selection.kind",
    "rollout_filter": "rollout_filter.kind",
    "advantage": "advantage.kind",
    "loss_aggregation": "loss_aggregation",
    "vocabulary": "model.vocabulary",
    "task": "task.kind",
}
"""Key of `VALUES` -> the key that holds the value in a recipe."""


def recipe() -> dict[str, YamlValue]:
    """A valid recipe with every renamed key; `test_the_recipe_is_valid_under_the_new_names`."""
    overrides = (
        "advantage={kind: group_normalized}",
        "rollout_filter={kind: random, keep_ratio: {init: 0.5, final: 0.5}}",
        "token_selection={kind: top_entropy, keep_ratio: 0.5}",
        "sample.engine={kind: vllm, max_num_seqs: 8, tensor_parallel_size: 1, "
        "gpu_memory_utilization: 0.5}",
        "cluster={}",
    )
    return apply_overrides(read_yaml(RECIPES / "grpo.yaml"), overrides)


def validate(content: dict[str, YamlValue], capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines below the recipe's name in the error of `reasontrain validate`."""
    Path("recipe.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    assert main(["validate", "recipe.yaml"]) == 2
    output, error = capsys.readouterr()
    assert output == ""
    first, *lines = error.splitlines()
    assert first == "reasontrain: recipe.yaml is not a recipe:"
    return lines


@pytest.fixture(autouse=True)
def _in_scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_recipe_is_valid_under_the_new_names(capsys: pytest.CaptureFixture[str]) -> None:
    Path("recipe.yaml").write_text(yaml.safe_dump(recipe()), encoding="utf-8")
    assert main(["validate", "recipe.yaml"]) == 0
    assert capsys.readouterr().out == "recipe.yaml: ok\n"


@pytest.mark.parametrize(("section", "old"), KEYS)
def test_an_old_key_is_one_line_that_names_the_new_key(
    capsys: pytest.CaptureFixture[str], section: str, old: str
) -> None:
    content = recipe()
    holder = content
    for key in SECTIONS[section].split(".")[:-1]:
        holder = holder[int(key) if key.isdigit() else key]
    new = KEYS[section, old]
    holder[old] = holder.pop(new, None)
    (line,) = validate(content, capsys)
    assert line.startswith(f"  {SECTIONS[section]}")
    assert line.endswith(f"{old}: renamed; use `{new}`")


@pytest.mark.parametrize(("key", "old"), VALUES)
def test_an_old_value_is_one_line_that_names_the_new_value(
    capsys: pytest.CaptureFixture[str], key: str, old: str
) -> None:
    content = apply_overrides(recipe(), [f"{VALUE_KEYS[key]}={old}"])
    (line,) = validate(content, capsys)
    assert line == f"  {VALUE_KEYS[key]}: {old!r} was renamed; use `{VALUES[key, old]}`"
