"""The settings reference has every key, and no meaning that nothing needs; `test_generated` holds
that the page is current.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, fields

import pytest

from reasontrain.recipe import Recipe
from tests.docs import settings_reference as reference
from tests.docs.generated import ROOT

PAGE = (ROOT / "docs/reference/settings.md").read_text(encoding="utf-8")


def classes() -> set[type]:
    """The settings classes of a recipe."""
    known, queue = {Recipe}, [Recipe]
    while queue:
        hints = reference.settings_hints(queue.pop()).values()
        new = {cls for hint in hints for cls in reference.classes_of(hint)} - known
        known |= new
        queue += new
    return known


def test_every_key_of_the_schema_is_on_the_page() -> None:
    schema = json.loads((ROOT / "recipes/schema.json").read_text(encoding="utf-8"))
    keys = {key for part in schema["$defs"].values() for key in part.get("properties", {})}
    keys |= schema["properties"].keys()
    assert keys - set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)) == {"kind"}


def test_every_kind_has_a_section() -> None:
    schema = json.loads((ROOT / "recipes/schema.json").read_text(encoding="utf-8"))
    kinds = {
        part["properties"]["kind"]["const"]
        for part in schema["$defs"].values()
        if "kind" in part.get("properties", {})
    }
    assert kinds == set(re.findall(r"`kind: (\w+)`$", PAGE, re.MULTILINE))


def test_titles_differ() -> None:
    titles = re.findall(r"^## (.*)$", PAGE, re.MULTILINE)
    assert len(titles) == len({reference.slug(title) for title in titles}) > 60


def test_no_meaning_is_left_over() -> None:
    undescribed = {
        field.name
        for cls in classes()
        if cls is not Recipe
        for field in fields(cls)
        if reference.described(cls, field.name) is None
    }
    assert reference.MEANINGS.keys() - undescribed == set()
    assert reference.TOP_LEVEL.keys() == {field.name for field in fields(Recipe)}


def test_a_key_that_nothing_describes_is_an_error() -> None:
    @dataclass
    class Settings:
        """Settings with `a` and an unknown key.

        Attributes:
            b: described here.
        """

        a: int = 0
        b: int = 0
        unheard_of: int = 0

    assert reference.meaning(Settings, "a") == "Settings with `a` and an unknown key"
    assert reference.meaning(Settings, "b") == "described here"
    with pytest.raises(AssertionError, match="no docstring says what `unheard_of`"):
        reference.meaning(Settings, "unheard_of")
