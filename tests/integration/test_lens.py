"""The lens in a real Chromium: it draws, filters, finds, slides, obeys keys, draws only what is in
sight, and no text of a model runs as a script.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from reasontrain.algo.token_selection import Random, Tip, TopEntropy
from reasontrain.lens import write_lens
from tests.integration.browser import Tab, chromium
from tests.lens.conftest import change, recorder

pytestmark = pytest.mark.integration

NUM = 120
STEPS = (1, 4, 7)
EVIL = (
    "<script>document.title = 'broken'</script></script><img src=x onerror=\"document.title = "
    "'broken'\">\u2028\u202eabc\ud800\x00"
)
INPUT = "new Event('input', {bubbles: true})"
DRAWN = "document.querySelectorAll('#texts .tok').length > 0 && !!document.querySelector('.row')"
CONTROLS = ("searchbox", "combobox", "slider", "checkbox", "spinbutton", "listbox", "option")


@pytest.fixture(scope="module")
def tab() -> Iterator[Tab]:
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three steps of 120 rollouts, of which two were dropped; rollout 11 of a step is evil."""
    run = recorder(tmp_path_factory.mktemp("lens"))(
        "run", Tip(), steps=STEPS, num=NUM, dropped=(2, 9)
    )

    def edit(i: int, row: dict) -> dict[str, object]:
        if i != 11:
            return {"prompt": f"Question {i}?"}
        texts = {"prompt": EVIL, "problem": EVIL, "answer": EVIL}
        return {**texts, "tokens": [EVIL] * len(row["tokens"])}

    for step in STEPS:
        change(run / f"tokens/step-{step}.jsonl", edit)
    return write_lens([run], rules=[Tip(), TopEntropy(keep_ratio=0.5), Random()])


def opened(tab: Tab, page: Path, **how: object) -> None:
    tab.open(page, **how)  # type: ignore[arg-type]
    tab.wait(DRAWN)


def text(tab: Tab, selector: str) -> str:
    return str(tab.value(f"document.querySelector({json.dumps(selector)}).innerText"))


def listed(tab: Tab) -> str:
    return text(tab, "#count")


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1440, 390])
def test_it_draws_within_its_width_from_its_own_files(
    tab: Tab, page: Path, width: int, dark: bool
) -> None:
    opened(tab, page, width=width, dark=dark)
    assert tab.value("document.documentElement.scrollWidth <= window.innerWidth")
    assert text(tab, "#about").startswith("Rollout 700")
    assert text(tab, "#step-name") == "step 7 (3 of 3)"
    lanes = "[...document.querySelectorAll('#texts .tok')].filter(t => t.style.cssText).length"
    assert tab.value(lanes) > 0  # type: ignore[operator]
    colours = (
        "new Set([...document.querySelectorAll('.tok')].map(t => "
        "getComputedStyle(t).backgroundColor)).size"
    )
    assert tab.value(colours) > 4  # type: ignore[operator]
    assert tab.nameless(*CONTROLS) == []
    assert tab.problems == []
    assert all(address.startswith(page.parent.as_uri()) for address in tab.asked)


def test_only_what_is_in_sight_is_in_the_document(tab: Tab, page: Path) -> None:
    opened(tab, page, height=900)
    num = "document.querySelectorAll('.row').length"
    assert tab.value(num) < 40  # type: ignore[operator]
    assert tab.value("document.querySelector('.row').getAttribute('aria-setsize')") == str(NUM)
    tab.value("document.querySelector('#list').scrollTop = 1e9")
    tab.wait(f"[...document.querySelectorAll('.row')].some(r => r.ariaPosInSet === '{NUM}')")
    assert tab.value(num) < 40  # type: ignore[operator]


def test_filters_and_search_leave_the_rollouts_that_fit(tab: Tab, page: Path) -> None:
    written = (page.parent / "data/run0-step7.js").read_text()
    rows = json.loads(written[written.index("{") : written.rindex(")")])["rollouts"]
    opened(tab, page)
    assert listed(tab) == "120 rollouts"
    for control, choice, left in (
        ("#verdict", "right", 60),
        ("#verdict", "wrong", 60),
        ("#verdict", "cut", 1),
        ("#dropped", "dropped", 2),
        ("#dropped", "kept", 118),
        ("#quadrant", "3", sum(row[11][2] > 0 for row in rows)),
    ):
        tab.choose(control, choice)
        tab.value(f"document.querySelector('{control}').dispatchEvent({INPUT})")
        tab.wait(f"document.querySelector('#count').textContent === '{left} of 120 rollouts'")
        tab.click("#reset")
        tab.wait("document.querySelector('#count').textContent === '120 rollouts'")
    tab.type("#group", "702")
    tab.wait("document.querySelector('#count').textContent === '2 of 120 rollouts'")
    assert text(tab, "#about") == "Rollout 704 · p2"
    tab.click("#reset")
    tab.type("#search", "QUESTION 7?")
    tab.wait("document.querySelector('#count').textContent === '1 of 120 rollouts'")
    tab.wait("document.querySelector('#about').textContent.startsWith('Rollout 707')")
    assert tab.problems == []


def test_steps_slide_and_keys_move(tab: Tab, page: Path) -> None:
    opened(tab, page)
    tab.value("document.querySelector('#step').focus()")
    tab.value(
        f"document.querySelector('#step').value = 0; "
        f"document.querySelector('#step').dispatchEvent({INPUT})"
    )
    tab.wait("document.querySelector('#about').textContent.startsWith('Rollout 100 ')")
    tab.value("document.activeElement.blur()")
    tab.press("j", "j")
    tab.wait("document.querySelector('#about').textContent.startsWith('Rollout 102 ')")
    assert "dropped" in text(tab, "#facts")
    tab.press("]")
    tab.wait("document.querySelector('#about').textContent.startsWith('Rollout 402 ')")
    assert text(tab, "#step-name") == "step 4 (2 of 3)"
    tab.press("k")
    tab.wait("document.querySelector('#about').textContent.startsWith('Rollout 401 ')")
    tab.value("document.querySelector('#list').focus()")
    tab.press("End")
    tab.wait("document.querySelector('#about').textContent.startsWith('Rollout 519 ')")
    active = "document.querySelector('#list').getAttribute('aria-activedescendant')"
    assert tab.value(f"document.getElementById({active}).ariaSelected") == "true"
    tab.value("document.querySelector('.text').focus()")
    tab.press("ArrowRight", "ArrowRight")
    assert "2 of " in text(tab, "#readout")
    assert "entropy" in text(tab, "#readout")
    assert "top_entropy keep_ratio=0.5: " in text(tab, "#readout")
    assert tab.value("document.querySelectorAll('.tok.on').length") == 1
    tab.press("/")
    assert tab.value("document.activeElement.id") == "search"
    assert tab.problems == []


def test_rules_stand_side_by_side(tab: Tab, page: Path) -> None:
    opened(tab, page, width=1440)
    boxes = "[...document.querySelectorAll('#rules input')].map(b => b.checked)"
    assert tab.value(boxes) == [True, False, True, True]  # TIP computed again keeps the same tokens
    assert text(tab, "#rules tr:nth-child(2)").count("100.0") == 1
    tab.choose("#layout", "columns")
    texts = "document.querySelectorAll('#texts .text').length"
    assert tab.value(texts) == 3
    rest = "[...document.querySelectorAll('#texts .text')].map(t => t.querySelectorAll('.rest'))"
    assert min(tab.value(f"{rest}.map(r => r.length)")) > 0  # type: ignore[type-var, arg-type]
    tab.click("#rules tr:nth-child(3) input")
    assert tab.value(texts) == 2
    tab.choose("#layout", "lines")
    before = tab.value("document.querySelectorAll('.rest').length")
    tab.click("#differ")
    assert before == 0 < tab.value("document.querySelectorAll('.rest').length")  # type: ignore[operator]
    values = "[...document.querySelector('#colour').options].map(o => o.value)"
    for value in tab.value(values):  # type: ignore[attr-defined]
        tab.choose("#colour", value)
    assert tab.problems == []


def test_a_rollout_with_a_script_does_nothing(tab: Tab, page: Path) -> None:
    opened(tab, page)
    title = tab.value("document.title")
    tab.type("#search", "<SCRIPT>document")
    tab.wait("document.querySelector('#about').textContent.startsWith('Rollout 711')")
    tab.wait(DRAWN)
    assert tab.value("document.querySelectorAll('main img, main script').length") == 0
    token = text(tab, "#texts .tok")
    assert token.startswith("<script>document.title = 'broken'</script>")
    assert "⟨U+2028⟩⟨U+202E⟩abc" in token  # what turns or breaks a line is named
    assert token.endswith("⟨U+0000⟩")
    tab.press("Escape")
    tab.value("document.querySelector('.text').focus()")
    tab.press("ArrowRight")
    assert "<script>" in text(tab, "#readout")
    assert (tab.value("document.title"), tab.problems) == (title, [])
