"""Progress of long work: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
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

LINE_EVERY_S = 10.0
BAR_WIDTH = 20
NAME_WIDTH = 24
"""Characters of a bar, and most characters of a name: both stay whole in 80 columns."""


@runtime_checkable
class Advance(Protocol):
    """Shows how far the work is."""

    def __call__(self, done: int, note: str) -> None: ...


@cache
def console() -> Console:
    """The one console: what is printed through it appears above a bar that is being drawn."""
    return Console(highlight=False, markup=False, emoji=False, soft_wrap=True)


@contextmanager
def progress(what: str, total: int) -> Iterator[Advance]:
    """`advance(done, note)`, drawn as a bar on a terminal and as a line now and then elsewhere.

    A note is a list of numbers, separated by two spaces; where there is little room, the last ones
    are left out.
    """
    if not console().is_terminal:
        yield _lines(what, total)
        return
    with bar_on(console()) as bar:
        task = bar.add_task(what, total=total, note="")
        yield lambda done, note: bar.update(task, completed=done, note=note)


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


def clock(seconds: float) -> str:
    """A duration as hours, minutes and seconds: 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


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
