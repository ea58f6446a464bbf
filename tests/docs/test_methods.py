"""Pages of methods have one form, and every method has one."""

from __future__ import annotations

import re

import pytest

from tests.docs.generated import METHODS, ROOT, claims_of

FORM = ["Idea", "Formula", "Evidence", "Recipe", "Claims", "Departures from the paper and its code"]
"""Sections in their order; a page may have others between them."""


@pytest.mark.parametrize("page", METHODS)
def test_a_page_has_the_form(page: str) -> None:
    text = (ROOT / f"docs/methods/{page}.md").read_text(encoding="utf-8")
    sections = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert [section for section in sections if section in FORM] == FORM
    assert f"`recipes/tiny/{page}.yaml`" in text
    assert re.search(r"arxiv\.org/abs/\d{4}\.\d{5}", text)


def test_every_page_is_of_a_method() -> None:
    assert {path.stem for path in (ROOT / "docs/methods").glob("*.md")} == METHODS.keys()


def test_every_claim_is_on_a_page() -> None:
    table = (ROOT / "recipes/README.md").read_text(encoding="utf-8").partition("\n### ")[0]
    rows = {
        name
        for paper in METHODS.values()
        for name in re.findall(r"^\| `(.*?)`", claims_of(paper), re.M)
    }
    assert rows == set(re.findall(r"^\| `([\w-]+)` \| ", table, re.MULTILINE))
