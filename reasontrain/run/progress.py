"""What a terminal shows during long work: a progress bar where somebody looks, plain lines where
nobody does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

LINE_EVERY_S = 10.0


@runtime_checkable
class Advance(Protocol):
    """Shows how far the work is."""

    def __call__(self, done: int, note: str) -> None: ...


@contextmanager
def progress(what: str, total: int) -> Iterator[tuple[Advance, Callable[[str], None]]]:
    """`advance(done, note)` and `say(line)`, drawn as a bar on a terminal and as a line now and
    then elsewhere.
    """
    console = Console(stderr=False, highlight=False, soft_wrap=True)
    if not console.is_terminal:
        yield _lines(what, total), lambda line: print(line, flush=True)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(what, total=total, note="")
        yield (
            lambda done, note: bar.update(task, completed=done, note=note),
            lambda line: console.print(line, markup=False),
        )


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
