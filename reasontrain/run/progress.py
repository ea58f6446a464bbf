"""Progress of long work: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Protocol, runtime_checkable

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions
from rich.measure import Measurement
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column

from reasontrain.metrics.working import Work, clock, current

LINE_EVERY_S = 10.0
SELDOM_S = 60.0
BAR_EVERY_S = 2.0
LOOK_EVERY_S = 1.0
"""Seconds between lines, at least and at most; between changes of a bar; between two looks."""
BAR_WIDTH = 20
NAME_WIDTH = 24
"""Characters of a bar, and most characters of a name: both stay whole in 80 columns."""


@runtime_checkable
class Advance(Protocol):
    """Shows how far the work is."""

    def __call__(self, done: int, note: str) -> None: ...


@runtime_checkable
class EndSignal(Protocol):
    """Tells a thread to end, as `threading.Event` does."""

    def wait(self, timeout: float) -> bool: ...


Show = Callable[[Work, float], None]
"""Shows a part of the work at a moment."""


@cache
def console() -> Console:
    """The one console: what is printed through it appears above a bar that is being drawn."""
    return Console(highlight=False, markup=False, emoji=False, soft_wrap=True)


@contextmanager
def progress(what: str, total: int) -> Iterator[Advance]:
    """`advance(done, note)`, drawn as a bar on a terminal and as a line now and then elsewhere.

    A note is a list of numbers, separated by two spaces; where there is little room, the last ones
    are left out. Between two calls, the part of the work under way (`metrics.working`) takes the
    place of the note, or a line of its own, as soon as it has taken a few seconds.
    """
    if not console().is_terminal:
        with _watching(_print_work, LINE_EVERY_S):
            yield _lines(what, total)
        return
    with bar_on(console()) as bar:
        task = bar.add_task(what, total=total, note="")

        def show(work: Work, now: float) -> None:
            bar.update(task, note="  ".join(work.parts(now)))

        with _watching(show, BAR_EVERY_S):
            yield lambda done, note: bar.update(task, completed=done, note=note)


@contextmanager
def _watching(show: Show, every_s: float) -> Iterator[None]:
    """A block beside which a thread shows the part of the work under way; see `_watch`."""
    stop = threading.Event()
    thread = threading.Thread(
        target=_watch, args=(stop, show, every_s), name="progress", daemon=True
    )
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _watch(stop: EndSignal, show: Show, every_s: float) -> None:
    """Show the part of the work under way until `stop`.

    It is shown when it is `every_s` seconds old, and again whenever it has grown by half, or by
    `SELDOM_S`: seldom enough for the log of a run with long parts.
    """
    shown: Work | None = None
    due = 0.0
    while not stop.wait(min(every_s, LOOK_EVERY_S)):
        work = current()
        if work is None:
            continue
        now = time.monotonic()
        if work is not shown:
            shown = work
            due = work.start_s + every_s
        if now >= due:
            show(work, now)
            due = now + max(every_s, min((now - work.start_s) / 2, SELDOM_S))


def _print_work(work: Work, now: float) -> None:
    """A line about the part of the work under way."""
    what, *rest = work.parts(now)
    print(f"{time.strftime('%H:%M:%S')} {what}: {', '.join(rest)}", flush=True)


def bar_on(where: Console) -> Progress:
    """A bar with its count and the time left; notes get the room that these leave."""
    name = Column(max_width=NAME_WIDTH, no_wrap=True, overflow="ellipsis")
    return Progress(
        TextColumn("{task.description}", markup=False, table_column=name),
        BarColumn(BAR_WIDTH, table_column=Column(min_width=8)),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        TimeRemainingColumn(table_column=Column(no_wrap=True)),
        _NoteColumn(Column(ratio=1, no_wrap=True)),
        console=where,
        expand=True,
    )


class _NoteColumn(ProgressColumn):
    """As many numbers of a task's note as there is room for."""

    def render(self, task: Task) -> _Fitting:
        """The note of a task."""
        return _Fitting(str(task.fields["note"]))


class _Fitting:
    """Text that leaves out its last parts, which two spaces separate, until it fits."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[str]:
        parts = self.text.split("  ")
        while parts and cell_len("  ".join(parts)) > options.max_width:
            parts.pop()
        yield "  ".join(parts)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(0, options.max_width)


def _lines(what: str, total: int) -> Advance:
    """A line at the first call, at the last, and no more often than every few seconds between."""
    last = -LINE_EVERY_S
    began: tuple[int, float] | None = None

    def advance(done: int, note: str) -> None:
        nonlocal last, began
        now = time.monotonic()
        pace = ""
        if began is None:  # how long the first took is unknown; a resumed run begins later
            began = (done, now)
        elif done > began[0]:
            each_s = (now - began[1]) / (done - began[0])
            pace = f"  {each_s:.3g} s each, {clock(each_s * (total - done))} left"
        if done >= total or now - last >= LINE_EVERY_S:
            last = now
            print(f"{time.strftime('%H:%M:%S')} {what} {done}/{total}  {note}{pace}", flush=True)

    return advance
