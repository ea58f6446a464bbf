"""Progress keeps its bar, count and time at every width; plain lines have a time."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from reasontrain.run import progress

NOTE = "loss 0.8638  reward 0.4219  kl_reverse 0.06311  kept_share 0.4999  grad_norm 1.234"


@pytest.mark.parametrize("width", [80, 100, 120, 200])
@pytest.mark.parametrize("name", ["tip", "a-very-long-name-of-a-run-with-seed-17"])
def test_numbers_give_way_first(width: int, name: str) -> None:
    where = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)
    with progress.bar_on(where) as bar:
        task = bar.add_task(name, total=3000, note="")
        bar.update(task, completed=1500, note=NOTE)
        bar.refresh()
        shown = where.render_lines(bar.get_renderable(), where.options, pad=False)[0]
    text = "".join(segment.text for segment in shown)
    assert "━" * 8 in text
    assert "1500/3000" in text
    assert re.search(r"\d:\d\d:\d\d|-:--:--", text)
    assert text.startswith(name if len(name) <= progress.NAME_WIDTH else name[:20])
    note = re.split(r"(?:\d:\d\d:\d\d|-:--:--)", text)[1].strip()
    assert NOTE.startswith(note)
    assert note == NOTE or NOTE[len(note) :].startswith("  ")  # whole numbers
    assert note.startswith("loss 0.8638") or (width == 80 and len(name) > 10)
    assert (note == NOTE) == (width == 200)


def test_plain_lines_have_a_time_and_the_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = iter([0.0, 4.0, 30.0, 4000.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    monkeypatch.setattr(progress.time, "strftime", lambda form: "12:34:56")
    with progress.progress("tip", 400) as advance:
        for done in (10, 12, 20, 400):
            advance(done, "loss 1")
    assert capsys.readouterr().out == (
        "12:34:56 tip 10/400  loss 1\n"
        "12:34:56 tip 20/400  loss 1  3 s each, 0:19:00 left\n"
        "12:34:56 tip 400/400  loss 1  10.3 s each, 0:00:00 left\n"
    )
