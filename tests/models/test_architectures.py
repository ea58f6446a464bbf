"""The table of architectures says that most can be trained and sampled.

`tests/docs/test_generated.py` holds that the table is what trying them gives.
"""

from __future__ import annotations

import pytest

from tests.architectures import COLUMNS, CONFIGS
from tests.test_architecture import ROOT


def cells() -> dict[str, list[str]]:
    """The table in docs/models.md: name -> cells."""
    text = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    table = text.partition("<!-- architectures")[2].partition("<!-- end")[0]
    lines = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("|")]
    assert lines[0][1:] == list(COLUMNS)
    return {line[0]: line[1:] for line in lines[2:]}


def test_the_table_has_every_architecture() -> None:
    assert list(cells()) == list(CONFIGS)
    assert len(CONFIGS) == 20


@pytest.mark.parametrize(
    ("column", "least"), [("padded", 17), ("packed", 14), ("LoRA", 17), ("samples", 14)]
)
def test_most_architectures_work(column: str, least: int) -> None:
    index = COLUMNS.index(column)
    assert sum(not row[index].startswith("no") for row in cells().values()) >= least
