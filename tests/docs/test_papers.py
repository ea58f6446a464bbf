"""The paper index names every paper that is cited; `test_generated` holds that it is current."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs import papers


def test_citations_are_found_in_code_and_recipes(tmp_path: Path) -> None:
    (tmp_path / "reasontrain/algo").mkdir(parents=True)
    (tmp_path / "reasontrain/algo/a.py").write_text("# arXiv 2604.14084, 2402.03300v2; 1.23456e5\n")
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes/a.yaml").write_text("# (arXiv\n# 1910.02054) lr: 2604.1408\n")
    assert [number for number, _ in papers.citations(tmp_path)] == [
        "2604.14084",
        "2402.03300",
        "1910.02054",
    ]


def test_a_cited_paper_without_a_title_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(papers.PAPERS, "2402.03300")
    with pytest.raises(AssertionError, match=r"needs a title for.*2402\.03300"):
        papers.papers_table()


def test_an_uncited_paper_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(papers.PAPERS, "2402.99999", ("A title", "nothing"))
    with pytest.raises(AssertionError, match=r"nothing cites.*2402\.99999"):
        papers.papers_table()
