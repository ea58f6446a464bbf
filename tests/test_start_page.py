"""The first page of the documentation, as it stands there, with the installed wheel."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.integration.test_package import built, commands_of_the_start_page, install, output

__all__ = ["built"]


@pytest.mark.slow
def test_the_start_page_takes_ten_minutes_at_most(built: Path, tmp_path: Path) -> None:
    """`tests/integration/test_package.py` runs the same commands on fewer steps."""
    (wheel,) = built.glob("*.whl")
    python, folder = install(wheel, tmp_path), tmp_path / "empty"
    folder.mkdir()
    began = time.monotonic()
    for words in commands_of_the_start_page():
        output([python, "-m", "reasontrain", *words], folder, OMP_NUM_THREADS="1")
    assert time.monotonic() - began < 600
