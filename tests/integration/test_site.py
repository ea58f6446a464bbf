"""The documentation site: it builds without a warning, its links resolve, it asks for nothing from
a network, and its search finds words in a real Chromium.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.browser import Tab, chromium
from tests.integration.processes import ROOT

pytestmark = pytest.mark.integration

LINK = re.compile(r'<(?:a|link|script|img|source|object)\b[^>]*?\s(?:href|src|data)="([^"]*)"')
TEMPLATE = re.compile(r"<template>.*?</template>|<!--.*?-->", re.DOTALL)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site of this tree; every warning is an error."""
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    ended = subprocess.run(
        [*build, "-d", folder / "doctrees", ROOT / "docs", folder / "html"],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert (ended.returncode, ended.stdout + ended.stderr) == (0, "")
    return folder / "html"


@pytest.fixture(scope="module")
def tab() -> Iterator[Tab]:
    with chromium() as opened:
        yield opened


LOCAL = ("file:", "data:")
"""Beginnings of addresses that need no network."""


def links(page: Path) -> list[str]:
    """Addresses that a page links to or loads."""
    return LINK.findall(TEMPLATE.sub("", page.read_text(encoding="utf-8")))


def dead(site: Path) -> Iterator[str]:
    """Links of a built site to files or anchors that it does not have."""
    anchors = {
        page.resolve(): set(re.findall(r'\sid="([^"]+)"', page.read_text(encoding="utf-8")))
        for page in site.rglob("*.html")
    }
    for page in anchors:
        for link in links(page):
            if re.match(r"[a-z]+:", link):
                continue
            file, _, anchor = link.partition("#")
            target = (page.parent / file.partition("?")[0]).resolve() if file else page
            if not target.exists() or (anchor and anchor not in anchors.get(target, {anchor})):
                yield f"{page.name}: {link}"


def test_a_dead_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        '<p id="x"><a href="#x"></a><a href="#y"></a><img src="b.svg">'
    )
    assert list(dead(tmp_path)) == ["a.html: #y", "a.html: b.svg"]


def test_every_page_is_there_and_every_link_leads_somewhere(site: Path) -> None:
    written = {
        page.relative_to(ROOT / "docs").with_suffix(".html").as_posix()
        for page in (ROOT / "docs").rglob("*.md")
    }
    assert {name for name in written if not (site / name).is_file()} == set()
    assert list(dead(site)) == []


def test_nothing_is_loaded_from_a_network(site: Path) -> None:
    loading = re.compile(
        r"<(?:link|script|img|source|object|iframe)\b[^>]*(?:href|src|data)=\"\w+://"
    )
    sheets = re.compile(r"(?:url\(|@import)\s*['\"]?(?:\w+:)?//")
    loads = [p.name for p in site.rglob("*.html") if loading.search(p.read_text("utf-8"))]
    assert (
        loads + [p.name for p in site.rglob("*.css") if sheets.search(p.read_text("utf-8"))] == []
    )


@pytest.mark.parametrize("word", ["keep_ratio", "leave_one_out", "quadrant"])
def test_the_search_finds_words_from_disk(site: Path, tab: Tab, word: str) -> None:
    tab.open(site / "search.html")
    tab.value(f"location.search = '?q={word}'")
    tab.wait("document.querySelectorAll('#search-results li a').length > 0")
    assert [address for address in tab.asked if not address.startswith(LOCAL)] == []
    assert tab.problems == []


@pytest.mark.parametrize("width", [390, 1440])
def test_no_page_is_wider_than_the_window(site: Path, tab: Tab, width: int) -> None:
    wide = []
    for page in sorted(site.rglob("*.html")):
        tab.open(page, width=width)
        if tab.value("document.documentElement.scrollWidth > window.innerWidth"):
            wide.append(page.relative_to(site).as_posix())
        assert [address for address in tab.asked if not address.startswith(LOCAL)] == []
    assert wide == []
