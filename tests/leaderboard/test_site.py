"""The pages: self-contained, escaped, complete."""

from __future__ import annotations

import base64
import hashlib
import json
import re

import pytest

from reasontrain.leaderboard import write_leaderboard
from tests.leaderboard.conftest import answer_row, single
from tests.report.test_build import Page

EVIL = "<script>alert(1)</script>"


@pytest.fixture
def site(make_run, make_report, tmp_path):
    paths = [
        make_run("a", {0: single("0000"), 10: single("1100")}),
        make_run("b", {0: single("0000"), 10: single("1110")}, tokens=70.0),
        make_report("hub/c", {"heldout": single("1000"), "gsm8k": single("10")}),
    ]
    write_leaderboard(paths, tmp_path / "site")
    return tmp_path / "site"


def test_everything_is_written(site):
    files = {path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()}
    own = {
        f"{folder}/{name}.{end}"
        for folder, end in (("runs", "html"), ("cards", "md"))
        for name in ("a", "b", "hub-c")
    }
    assert files == {"index.html", "leaderboard.md", "leaderboard.csv", "leaderboard.json"} | own


def test_the_board_has_rows_columns_and_pictures(site):
    text = (site / "index.html").read_text()
    page = Page(text)
    assert page.open == []
    assert [row["data-row"] for row in page.named("tr") if "data-row" in row] == ["b", "a", "hub-c"]
    labels = [svg["aria-label"] for svg in page.named("svg") if "aria-label" in svg]
    assert labels[0].startswith("heldout by training step: a from 0.0")
    assert labels[1].startswith("accuracy on heldout against mean response tokens: b 75.0")
    links = {a["href"] for a in page.named("a")}
    assert all((site / link).is_file() for link in links)
    assert {"runs/a.html", "cards/hub-c.md", "leaderboard.csv"} < links


def test_a_page_runs_one_script_and_asks_nobody(site):
    for path in site.rglob("*.html"):
        text = path.read_text()
        page = Page(text)
        scripts = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
        assert len(scripts) == 1
        assert (
            page.named("meta")[1]["content"]
            == f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
        )
        assert not {"link", "img", "iframe", "object", "embed", "base"} & {
            tag for tag, _ in page.elements
        }
        assert not any(
            name in attrs
            for _, attrs in page.elements
            for name in ("src", "style", "onclick", "onload")
        )
        assert not re.search(r"url\(|@import|https?:", text)


def test_a_row_links_to_the_report_and_the_lens_that_its_run_has(make_run, tmp_path):
    """Folders with a space or a % in their names included."""
    plain, other = make_run("a", {1: single("1")}), make_run("b 5%", {1: single("1")})
    for name in ("report.html", "lens/index.html"):
        (other / name).parent.mkdir(exist_ok=True)
        (other / name).write_text("page")
    write_leaderboard([plain, other], tmp_path / "site")
    pages = {path.stem: Page(path.read_text()) for path in (tmp_path / "site/runs").iterdir()}
    links = {
        stem: [a["href"] for a in page.named("a") if a["href"].split("/")[1] != "index.html"]
        for stem, page in pages.items()
    }
    assert sorted(links.values()) == [
        [],
        ["../../b%205%25/report.html", "../../b%205%25/lens/index.html"],
    ]


def test_wrong_answers_come_first_and_text_is_escaped(make_run, tmp_path):
    run = make_run("a", {1: single("101")})
    rows = [
        answer_row(0, True, EVIL),
        answer_row(1, False, EVIL + "</pre>"),
        answer_row(2, True) | {"gold": EVIL},
    ]
    (run / "answers/heldout-step-1.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows)
    )
    write_leaderboard([run], tmp_path / "site")
    page = Page((tmp_path / "site/runs/a.html").read_text())
    verdicts = [
        d["class"].split()[1]
        for d in page.named("details")
        if d.get("class", "").startswith("answer")
    ]
    assert verdicts == ["wrong", "right", "right"]
    assert page.open == []
    assert len(page.named("script")) == 1
    assert page.texts.count(EVIL) == 1
    assert EVIL + "</pre>" in page.texts


def test_a_name_from_anywhere_is_escaped_everywhere(make_report, tmp_path):
    folder = make_report("evil", {"s": single("10")})
    report = json.loads((folder / "report.json").read_text())
    (folder / "report.json").write_text(json.dumps(report | {"model": f'{EVIL}"><img src=x>|'}))
    write_leaderboard([folder], tmp_path / "site")
    for path in (tmp_path / "site").rglob("*.html"):
        page = Page(path.read_text())
        assert page.open == []
        assert not page.named("img")
        assert [s for s in page.named("script") if s.get("type") != "application/json"] == [{}]
    assert "<script>" not in (tmp_path / "site/leaderboard.md").read_text()
