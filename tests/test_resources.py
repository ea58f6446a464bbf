"""Files that come with the package: found by name, printed, and copied whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from reasontrain import resources
from reasontrain.cli import main
from reasontrain.recipe import json_schema, read_recipe

ROOT = Path(__file__).parents[1]


def words(capsys: pytest.CaptureFixture[str]) -> str:
    """Output and messages, each wrapped line in one piece."""
    captured = capsys.readouterr()
    return " ".join((captured.out + captured.err).split())


def test_recipes_and_suites_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    about = next(line for line in lines if line.startswith("tiny/tip "))
    assert about.split(maxsplit=1)[1].startswith("TIP (arXiv 2604.14084) on the tiny testbed: on-")
    assert {line.split()[0] for line in lines} == {
        path.relative_to(ROOT / "recipes").with_suffix("").as_posix()
        for path in (ROOT / "recipes").rglob("*.yaml")
        if path.name != "claims.yaml"
    }
    assert all(len(line) <= 100 for line in lines)
    assert main(["suites"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines} == {
        path.stem for path in (ROOT / "eval/suites").glob("*.yaml")
    }


def test_show_prints_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "show", "tiny/tip"]) == 0
    assert capsys.readouterr().out == (ROOT / "recipes/tiny/tip.yaml").read_text()
    assert main(["suites", "show", "gsm8k"]) == 0
    assert capsys.readouterr().out == (ROOT / "eval/suites/gsm8k.yaml").read_text()


def test_every_recipe_can_be_copied_and_is_valid_there(tmp_path: Path) -> None:
    for recipe in resources.recipes():
        (copy,) = resources.copy([recipe.path], tmp_path / recipe.name)
        assert read_recipe(copy) == read_recipe(recipe.path)
        line = copy.read_text().splitlines()[1]
        assert Path(line.removeprefix(resources.SCHEMA_LINE)).is_file()


def test_copies_are_made_all_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "grpo.yaml").write_text("mine")
    assert main(["recipes", "copy", "tiny/tip", "tiny/grpo"]) == 2
    assert "grpo.yaml exists; add --force to replace it" in words(capsys)
    assert main(["recipes", "copy", "tiny/tip", "small/tip"]) == 2
    assert "two of them are named tip.yaml" in words(capsys)
    assert main(["recipes", "copy", "tiny/tip", "tiny/no"]) == 2
    assert "there is no recipe 'tiny/no'" in words(capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["grpo.yaml"]
    assert (tmp_path / "grpo.yaml").read_text() == "mine"
    assert main(["recipes", "copy", "recipes/tiny/tip.yaml", "tiny/grpo", "--force"]) == 0
    assert words(capsys) == "tip.yaml grpo.yaml"
    assert read_recipe(tmp_path / "grpo.yaml").name == "grpo-tiny"


def test_launch_scripts_are_copied(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["launch", "copy", "slurm", "local", "--to", str(tmp_path / "jobs")]) == 0
    for name in ("slurm/train.sbatch", "slurm/evaluate.sbatch", "local.sh"):
        copy, source = tmp_path / "jobs" / name, ROOT / "launch" / name
        assert copy.read_bytes() == source.read_bytes()
        assert copy.stat().st_mode == source.stat().st_mode
    capsys.readouterr()
    assert main(["launch", "copy", "slrum"]) == 2
    assert "there are no launch scripts 'slrum'; did you mean `slurm`?" in words(capsys)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["recipes", "copy"], "copy needs a name; `list` shows them"),
        (["recipes", "list", "tiny/tip"], "list takes no names; to print tiny/tip: show"),
        (["recipes", "show", "tiny/tipp"], "there is no recipe 'tiny/tipp'; did you mean"),
        (["suites", "show", "gsm8"], "there is no suite 'gsm8'; did you mean `gsm8k`?"),
        (
            ["validate", "recipes/tiny/missing.yaml"],
            "there is no file recipes/tiny/missing.yaml",
        ),
        (
            ["train", "recipes/tiny/tip.yaml"],
            "there is no file recipes/tiny/tip.yaml; `reasontrain recipes copy tiny/tip` copies",
        ),
        (["show", "tiny/grpo"], "`reasontrain recipes copy tiny/grpo` copies that recipe here"),
    ],
)
def test_mistakes_are_one_sentence(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    assert message in words(capsys)


# ---- the schema


def test_the_schema_is_that_of_the_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    assert capsys.readouterr().out == json_schema()
    committed = (ROOT / "recipes/schema.json").read_text()
    assert committed == json_schema(), "make map rewrites it"


def test_every_recipe_fits_the_schema_and_names_it() -> None:
    validator = jsonschema.Draft202012Validator(json.loads(json_schema()))
    for recipe in resources.recipes():
        text = recipe.path.read_text()
        assert list(validator.iter_errors(yaml.safe_load(text))) == [], recipe.name
        line = text.splitlines()[1]
        assert line.startswith(resources.SCHEMA_LINE), recipe.name
        path = recipe.path.parent / line.removeprefix(resources.SCHEMA_LINE)
        assert path.samefile(ROOT / "recipes/schema.json")


@pytest.mark.parametrize(
    "change",
    [
        {"lr": 1},  # an unknown key
        {"objective": {"kind": "grpoo"}},
        {"steps": 0},
        {"token_selection": {"kind": "tip", "keep_ratio": 1.5}},
        {"token_selection": {"kind": "tip", "keep": 0.5}},
    ],
)
def test_the_schema_refuses_what_recipes_refuse(change: dict[str, object]) -> None:
    content = yaml.safe_load((ROOT / "recipes/tiny/tip.yaml").read_text())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(content | change, json.loads(json_schema()))


# ---- completion


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_knows_commands(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "leaderboard" in script
    assert "--max-num-seqs" in script
