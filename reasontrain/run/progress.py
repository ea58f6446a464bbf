"""Progress of long work: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Protocol, runtime_checkable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

LINE_EVERY_S = 10.0


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
    """`advance(done, note)`, drawn as a bar on a terminal and as a line now and then elsewhere."""
    if not console().is_terminal:
        yield _lines(what, total)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=console()) as bar:
        task = bar.add_task(what, total=total, note="")
        yield lambda done, note: bar.update(task, completed=done, note=note)


def _lines(what: str, total: int) -> Advance:
    """A line at the first call, at the last, and no more often than every few seconds between."""
    last = -LINE_EVERY_S

    def advance(done: int, note: str) -> None:
        nonlocal last
        now = time.monotonic()
        if done >= total or now - last >= LINE_EVERY_S:
            last = now
            print(f"{what} {done}/{total}  {note}", flush=True)

    return advance
