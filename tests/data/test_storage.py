"""Hashes of files that are compared between two starts of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from reasontrain.data import storage


@pytest.mark.parametrize("place", [0, 1 << 20, (5 << 20) - 1])
def test_another_content_of_a_large_file_has_another_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    monkeypatch.setattr(storage, "WHOLE_BYTES", 1 << 20)
    path = tmp_path / "weights"
    content = bytearray(5 << 20)
    path.write_bytes(content)
    before = storage.content_hash(path)
    assert storage.content_hash(path) == before
    content[place] = 1
    path.write_bytes(content)
    assert storage.content_hash(path) != before
    path.write_bytes(bytes((5 << 20) + 1))
    assert storage.content_hash(path) != before


def test_a_folder_is_its_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    before = storage.content_hash(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    renamed = storage.content_hash(tmp_path)
    (tmp_path / "b").write_text("2")
    assert len({before, renamed, storage.content_hash(tmp_path)}) == 3
