"""The leaderboard in a real Chromium: it draws, sorts, filters, compares and searches, and no
answer runs as a script.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from reasontrain.leaderboard import write_leaderboard
from tests.integration.browser import Tab, chromium
from tests.leaderboard.conftest import answer_row, make_report, make_run, single

pytestmark = pytest.mark.integration
__all__ = ["make_report", "make_run"]

ROWS = (
    "[...document.querySelectorAll('#board tbody tr')].filter(r => !r.hidden).map(r => "
    "r.dataset.row)"
)
EVIL = (
    "<script>document.title = 'broken'</script><img src=x onerror=\"document.title = "
    "'broken'\"></pre></details>"
)


@pytest.fixture(scope="module")
def tab() -> Iterator[Tab]:
    with chromium() as found:
        yield found


@pytest.fixture
def site(make_run, make_report, tmp_path: Path) -> Path:
    """a is right on 4, b on 14, c on 8 of 20 problems of heldout; c has another suite too, with two
    samples each.
    """
    a = make_run("a", {0: single("0" * 20), 10: single("1" * 4 + "0" * 16)})
    b = make_run("b", {0: single("0" * 20), 10: single("1" * 14 + "0" * 6)}, tokens=70.0)
    c = make_report(
        "hub/c", {"heldout": single("1" * 8 + "0" * 12), "other": [[True, False], [False, False]]}
    )
    rows = [answer_row(m, m < 4, EVIL if m in (2, 9) else "") for m in range(20)]
    rows[19] |= {"extracted": EVIL, "gold": EVIL, "problem": EVIL}
    for run in (a, b):
        rows_of = [row | {"correct": m < (4 if run is a else 14)} for m, row in enumerate(rows)]
        (run / "answers/heldout-step-10.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in rows_of)
        )
    path = c / "heldout.jsonl"
    lines = [json.dumps(rows[m] | {"correct": m < 8}) for m in range(20)]
    path.write_text("\n".join(lines) + "\n")
    write_leaderboard([a, b, c], tmp_path / "site")
    return tmp_path / "site"


def visible(tab: Tab, selector: str) -> object:
    """The texts of what is drawn."""
    return tab.value(
        f"[...document.querySelectorAll({json.dumps(selector)})].filter(e => "
        f"e.checkVisibility()).map(e => e.innerText)"
    )


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 360])
def test_every_page_draws_within_its_width_and_asks_nobody(
    tab: Tab, site: Path, width: int, dark: bool
) -> None:
    for page in site.rglob("*.html"):
        tab.open(page, width=width, dark=dark)
        assert tab.value(
            "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
        ), page.name
        assert tab.value(
            "[...document.querySelectorAll('svg')].every(s => "
            "s.getBoundingClientRect().width > 20 || !s.checkVisibility())"
        )
        assert (tab.problems, tab.asked) == ([], [page.as_uri()])


def test_names_have_room_on_a_telephone(tab: Tab, site: Path) -> None:
    tab.open(site / "index.html", width=360)
    assert tab.value(
        "document.querySelector('#board tbody th').getBoundingClientRect().width >= 110"
    )
    assert tab.value(
        "document.querySelector('#board tbody tr').getBoundingClientRect().height <= 110"
    )


def test_rows_are_sorted_by_a_column_both_ways(tab: Tab, site: Path) -> None:
    tab.open(site / "index.html")
    assert tab.value(ROWS) == ["b", "hub-c", "a"]
    tab.click("#board thead th:nth-child(2) button")
    assert tab.value(ROWS) == ["a", "hub-c", "b"]
    assert (
        tab.value(
            "document.querySelector('#board thead th:nth-child(2)').getAttribute('aria-sort')"
        )
        == "ascending"
    )
    tab.click("#board thead th:first-child button")
    assert tab.value(ROWS) == ["a", "b", "hub-c"]
    tab.click("#board thead th:nth-child(3) button")
    assert tab.value(ROWS)[0] == "hub-c"  # the only one that was asked: the others come last
    assert tab.problems == []


def test_models_are_found_in_table_and_pictures(tab: Tab, site: Path) -> None:
    tab.open(site / "index.html")
    tab.type("#find", "STEP 10 b")
    assert tab.value(ROWS) == ["b"]
    assert visible(tab, "#count") == ["1 of 3 models"]
    drawn = "filter(g => getComputedStyle(g).display !== 'none').map(g => g.dataset.row)"
    lines = f"[...document.querySelectorAll('svg [data-row]')].{drawn}"
    assert set(tab.value(lines)) == {"b"}  # type: ignore[call-overload]
    tab.type("#find", "x")
    assert tab.value(ROWS) == []


def test_models_are_set_beside_one_of_them(tab: Tab, site: Path) -> None:
    """b less a is 10 of 20 problems: 50 points, for sure; c less a is 4 of 20."""
    tab.open(site / "index.html")
    gaps = "#board tbody tr td:nth-child(2) .gap"
    before = visible(tab, gaps)
    assert before[0] == "best"  # type: ignore[index]
    tab.choose("#beside", "a")
    now = visible(tab, gaps)
    assert [text.split(" ")[0] for text in now] == ["+50.0", "+20.0", "compared"]  # type: ignore[attr-defined]
    colour = "getComputedStyle(document.querySelector('#board tbody .gap.up')).color"
    assert tab.value(colour) == "rgb(28, 114, 69)"
    tab.choose("#beside", "")
    assert visible(tab, gaps) == before


def test_another_metric_has_columns_of_its_own(tab: Tab, site: Path) -> None:
    tab.open(site / "index.html")
    assert [text.split("\n")[0] for text in visible(tab, "#board thead button")] == [
        "model",
        "heldout",
        "other",
    ]  # type: ignore[attr-defined]
    tab.choose("#metric", "pass@2")
    assert visible(tab, "#board thead button") == ["model", "other"]
    assert tab.value(ROWS)[0] == "hub-c"  # type: ignore[index]


def test_an_answer_with_a_script_does_nothing_and_can_be_found(tab: Tab, site: Path) -> None:
    tab.open(site / "runs/a.html")
    assert tab.value("document.title") == "a"
    assert tab.value("document.querySelectorAll('main img, main script').length") == 0
    assert tab.value("document.querySelectorAll('.answer').length") == 20
    assert visible(tab, ".answer .mark")[:16] == ["wrong"] * 16  # type: ignore[index]
    tab.type("#search", "<SCRIPT>document")
    assert visible(tab, "#count") == ["3 of 20 answers"]
    tab.choose("#show", "right")
    assert len(visible(tab, ".answer")) == 1  # type: ignore[arg-type]
    tab.click(".answer:not([hidden]) summary")
    assert EVIL in visible(tab, ".answer pre")[0]  # type: ignore[index]
    assert (tab.value("document.title"), tab.problems, len(tab.asked)) == ("a", [], 1)
