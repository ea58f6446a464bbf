"""`reasontrain new plugin`: the repository that it writes works as it is."""

from __future__ import annotations

import sys
import tomllib
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

from reasontrain.cli import main
from reasontrain.recipe import read_recipe


def test_the_repository_passes_its_own_tests_and_its_recipe_is_valid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Imported by path: nothing is installed."""
    assert main(["new", "plugin", "my-sharp_rule", "--to", str(tmp_path)]) == 0
    repository = tmp_path / "my-sharp_rule"
    files = {p.relative_to(repository).as_posix() for p in repository.rglob("*") if p.is_file()}
    assert files == {
        "README.md",
        "my_sharp_rule/__init__.py",
        "my_sharp_rule/rule.py",
        "pyproject.toml",
        "recipe.yaml",
        "tests/test_rule.py",
    }
    text = "".join((repository / file).read_text() for file in files)
    assert not {"MODULE", "CLASS", "KIND", "NAME"} & set(text.replace("/", " ").split())
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    assert project["name"] == "my-sharp_rule"
    entry = {"my_sharp_rule": "my_sharp_rule.rule:MySharpRule"}
    assert project["entry-points"] == {"reasontrain.token_selection": entry}
    monkeypatch.syspath_prepend(repository)
    spec = spec_from_file_location("test_rule_of_template", repository / "tests/test_rule.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        tests = [value for name, value in vars(module).items() if name.startswith("test_")]
        assert len(tests) == 2
        for test in tests:
            test()
        recipe = read_recipe(repository / "recipe.yaml")
        assert recipe.token_selection.kind == "my_sharp_rule/rule.py:MySharpRule"
    finally:
        for name in [name for name in sys.modules if name.startswith("my_sharp_rule")]:
            del sys.modules[name]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("My Rule", "'My Rule' is no name of a package; use lower-case letters, digits"),
        ("../up", "'../up' is no name of a package"),
        ("top-entropy", "top-entropy is a rule of reasontrain; choose another name"),
        ("torch", "torch is a word of Python, or an installed package; choose another name"),
        ("class", "class is a word of Python"),
    ],
)
def test_names_that_cannot_be_used_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, sentence: str
) -> None:
    assert main(["new", "plugin", name, "--to", str(tmp_path)]) == 2
    assert sentence in " ".join(capsys.readouterr().err.split())
    assert list(tmp_path.iterdir()) == []


def test_files_that_exist_are_replaced_only_on_request(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["new", "plugin", "sharp", "--to", str(tmp_path)]
    assert main(words) == 0
    readme = tmp_path / "sharp/README.md"
    readme.write_text("mine")
    assert main(words) == 2
    assert "exists; choose another name, or --force to replace it" in capsys.readouterr().err
    assert readme.read_text() == "mine"
    assert main([*words, "--force"]) == 0
    assert readme.read_text() != "mine"
