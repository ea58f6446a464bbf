"""Generated parts of the documents are current, and the shape glossary names every letter."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.docs.generated import PARTS, first_sentence, map_table, with_parts
from tests.test_architecture import ROOT, sources

DOCUMENTS = sorted({name for _, documents in PARTS.values() for name in documents})
SHAPED = frozenset({"Bool", "Float", "Float64", "Int", "Num", "Shaped"})
SUFFIX = re.compile(r"^(?=.*[a-z]).*_([A-Z][A-Z0-9]*)$")
"""The shape at the end of a name; a constant's name has no lower case."""


@pytest.mark.parametrize("document", DOCUMENTS)
def test_generated_parts_are_current(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    assert text == with_parts(text, document), f"{document} is out of date; run `make map`"


def test_the_map_names_every_package_and_module_at_the_top() -> None:
    rows = map_table()
    for path in (ROOT / "reasontrain").iterdir():
        if path.stem.startswith("_") or path.name == "py.typed" or path.name == "api.py":
            continue
        assert f"(reasontrain/{path.name})" in rows, path.name


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("Learners: they step.\n\nMore.", "Learners: they step"),
        ("One. Two.", "One"),
        ("Dr. GRPO and\nothers.", "Dr. GRPO and others"),
        ("In `loop.py` a step.", "In `loop.py` a step"),
    ],
)
def test_a_first_sentence_ends_at_a_full_stop(text: str, sentence: str) -> None:
    assert first_sentence(text) == sentence


def shape_letters(source: str) -> Iterator[str]:
    """Letters of the shapes in annotations, and of the suffixes of annotated names."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Subscript(
                value=ast.Name(id=name), slice=ast.Tuple(elts=[_, ast.Constant(value=str(shape))])
            ) if name in SHAPED:
                yield from re.findall(r"[A-Za-z]", shape)
            case ast.arg(arg=name) | ast.AnnAssign(target=ast.Name(id=name)):
                if suffix := SUFFIX.search(name):
                    yield from re.findall(r"[A-Z]", suffix[1])


def test_letters_are_found_in_annotations_and_names() -> None:
    source = 'def f(x_BT: Float[Tensor, "B T"], y_Q1: Tensor) -> Int[Tensor, "*S 2"]: ...\nz_W: int'
    assert set(shape_letters(source)) == set("BTQSW")


def glossary() -> set[str]:
    """The letters that CONTRIBUTING explains, each with an example."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = text.partition("## Shape letters")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([A-Za-z, ]+) \| (.+?) \| (.*`.+`.*) \|$", table, re.MULTILINE)
    return {letter for letters, _, _ in rows for letter in letters.split(", ")}


def test_the_glossary_names_every_letter_that_is_used_and_no_other() -> None:
    used = {letter for text in sources().values() for letter in shape_letters(text)}
    assert used == glossary()
