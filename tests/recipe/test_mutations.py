"""Ten thousand wrong recipes are refused in a sentence, and two hundred rewritten ones are read."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from reasontrain.recipe import Recipe, read_recipe
from reasontrain.types import UserError
from tests.recipe import mutations

FOLDER = Path(__file__).parents[2] / "recipes"
RECIPES = sorted(set(FOLDER.rglob("*.yaml")) - {FOLDER / "claims.yaml"})
BROKEN = 10_000
REWRITTEN = 200
PARTS = 20
"""One part of each is tested by default; all of them are slow."""


def parts() -> list[object]:
    return [pytest.param(part, marks=[pytest.mark.slow] if part else []) for part in range(PARTS)]


def refusal(path: Path, number: int) -> str:
    """The error of a recipe; empty if there is none."""
    try:
        read_recipe(path)
    except UserError as error:
        return str(error)
    except Exception as error:
        raise AssertionError(f"mutation {number}") from error
    return ""


def is_located(line: str) -> bool:
    """Whether an error names a key or a line."""
    return re.match(r"  .*\S: ", line) is not None


@pytest.mark.parametrize("part", parts())
def test_a_wrong_recipe_is_a_sentence_with_file_and_key_or_line(tmp_path: Path, part: int) -> None:
    path = tmp_path / "mutated.yaml"
    texts = [recipe.read_text(encoding="utf-8") for recipe in RECIPES]
    refused = 0
    for number in range(part, BROKEN, PARTS):
        rng = random.Random(number)
        path.write_bytes(mutations.broken(rng.choice(texts), rng))
        said = refusal(path, number)
        refused += said != ""
        first, *lines = said.split("\n")
        assert len(said) < 20_000, number
        if lines:
            assert first == f"{path} is not a recipe:"
            assert [line for line in lines if not is_located(line)] == [], number
        elif first:
            assert str(path) in first
            assert re.search(r"line \d+|position \d+|is expected, it is", first), (number, first)
    assert refused > BROKEN / PARTS / 2
    assert [file.name for file in tmp_path.iterdir()] == ["mutated.yaml"]


@pytest.fixture(scope="module")
def originals() -> list[tuple[str, Recipe]]:
    return [(path.read_text(encoding="utf-8"), read_recipe(path)) for path in RECIPES]


@pytest.mark.parametrize("part", parts())
def test_a_recipe_written_in_another_way_is_equal(
    tmp_path: Path, originals: list[tuple[str, Recipe]], part: int
) -> None:
    path = tmp_path / "rewritten.yaml"
    for number in range(part, REWRITTEN, PARTS):
        rng = random.Random(number)
        text, recipe = rng.choice(originals)
        path.write_bytes(mutations.same_meaning(text, rng))
        try:
            assert read_recipe(path) == recipe, number
        except UserError as error:
            raise AssertionError(f"rewriting {number}: {path.read_bytes().decode()}") from error
