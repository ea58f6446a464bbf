"""The messages that docs/troubleshooting.md quotes are those of the code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.papers import ROOT

PAGE = ROOT / "docs/troubleshooting.md"
QUOTED = re.findall(r"^\| `(.+?)` \| ", PAGE.read_text(encoding="utf-8"), re.MULTILINE)


def texts(source: str) -> Iterator[str]:
    """The texts of a module, with … for each value that is put into one."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            yield "".join(
                part.value if isinstance(part, ast.Constant) else "…" for part in node.values
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def is_in(message: str, text: str) -> bool:
    """True if the parts of a message around … stand in a text, in their order."""
    parts = [re.escape(part) for part in message.split("…") if part]
    return re.search(".*".join(parts), text, re.DOTALL) is not None


def test_a_message_is_recognised_and_another_is_not() -> None:
    (text, *_) = texts("f'the disk under {folder} has {free:.1f} GB'")
    assert text == "the disk under … has … GB"
    assert is_in("the disk under … has … GB", text)
    assert not is_in("the disk under … had … GB", text)


@pytest.fixture(scope="module")
def written() -> list[str]:
    """Every text in the package."""
    return [
        text
        for path in sorted(Path(ROOT / "reasontrain").rglob("*.py"))
        for text in texts(path.read_text(encoding="utf-8"))
    ]


def test_there_are_messages() -> None:
    assert len(QUOTED) > 35


@pytest.mark.parametrize("message", QUOTED)
def test_the_code_has_each_message(message: str, written: list[str]) -> None:
    assert any(is_in(message, text) for text in written)
