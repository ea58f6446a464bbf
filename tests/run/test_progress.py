"""Progress keeps its bar, count and time at every width; plain lines have a time."""

from __future__ import annotations

import io
import re
from threading import Event

import pytest
from rich.console import Console

from reasontrain.metrics.working import Work, working
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


def lines_about(seconds: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Ages of a part of the work, in seconds, at which a line about it is printed."""
    ages = []
    now = 0.0
    work = Work("learning", "tokens", total=1000, start_s=0.0)

    class Clock:
        def wait(self, timeout: float) -> bool:
            nonlocal now
            now += timeout
            return now > seconds

    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    monkeypatch.setattr(progress, "current", lambda: work)
    progress._watch(Clock(), lambda _, at: ages.append(round(at)), every_s=progress.LINE_EVERY_S)
    return ages


def test_long_work_is_shown_after_ten_seconds_and_then_more_and_more_seldom(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert lines_about(9, monkeypatch) == []
    assert lines_about(300, monkeypatch) == [10, 20, 30, 45, 68, 102, 153, 213, 273]


def test_work_has_a_line_where_there_is_no_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.01)
    monkeypatch.setattr(progress.time, "strftime", lambda form: "12:34:56")
    seen = Event()
    printed = progress._print_work

    def show(work: Work, now: float) -> None:
        printed(work, now)
        seen.set()

    monkeypatch.setattr(progress, "_print_work", show)
    with progress.progress("tip", 4), working("learning", "tokens", 10) as work:
        work.done = 5
        assert seen.wait(30)
    first = capsys.readouterr().out.splitlines()[0]
    assert re.fullmatch(
        r"12:34:56 learning: [\d.e+]+ tokens/s, 0:00:00 left, 5 of 10 tokens", first
    )


def test_a_part_of_the_work_fits_beside_a_bar_of_80_columns() -> None:
    work = Work("sampling 16 responses", "tokens", done=3000, left_s=90.0, start_s=0.0)
    where = Console(file=io.StringIO(), force_terminal=True, width=80, color_system=None)
    with progress.bar_on(where) as bar:
        task = bar.add_task("tip-small", total=8, note="")
        bar.update(task, completed=1, note="  ".join(work.parts(20.0)))
        bar.refresh()
        shown = where.render_lines(bar.get_renderable(), where.options, pad=False)[0]
    text = "".join(segment.text for segment in shown)
    assert "sampling 16 responses" in text
    assert "1/8" in text
