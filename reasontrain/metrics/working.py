"""The work that a process is doing now, for people who watch it: part, count and pace.

Parts of a step may take minutes. They say here how far they are, which costs nothing, and a command
that runs them shows it (`run.progress`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Work:
    """A part of the work under way.

    Attributes:
        what: the part, such as "sampling 16 responses".
        unit: what is counted, in the plural.
        total: how many of them there will be; None if that is not known.
        done: how many there are.
        note: what else there is to say, such as the number of finished responses.
        left_s: seconds left at most, where they do not follow from `done` and `total`.
        start_s: the moment of its start.
    """

    what: str
    unit: str = ""
    total: int | None = None
    done: int = 0
    note: str = ""
    left_s: float | None = None
    start_s: float = field(default_factory=time.monotonic)

    def parts(self, now_s: float) -> list[str]:
        """Its description in pieces, the most important first.

        Args:
            now_s: the moment, of the same clock as `start_s`.
        """
        seconds = max(now_s - self.start_s, 1e-9)
        pieces = [self.what]
        if self.done and self.unit:
            pieces.append(f"{self.done / seconds:.3g} {self.unit}/s")
        if self.done and self.total:
            pieces.append(f"{clock(seconds * (self.total / self.done - 1))} left")
        elif self.left_s is not None:
            pieces.append(f"at most {clock(self.left_s)} left")
        else:
            pieces.append(clock(seconds))
        if self.done and self.unit:
            of = "" if self.total is None else f" of {self.total:,}"
            pieces.append(f"{self.done:,}{of} {self.unit}")
        return [*pieces, *filter(None, [self.note])]


_stack: list[Work] = []


@contextmanager
def working(what: str, unit: str = "", total: int | None = None) -> Iterator[Work]:
    """A block that is this part of the work; its caller counts in `done`.

    Of nested blocks the innermost is shown.
    """
    work = Work(what, unit, total)
    _stack.append(work)
    try:
        yield work
    finally:
        _stack.remove(work)


def current() -> Work | None:
    """The innermost part that is under way in this process."""
    return _stack[-1] if _stack else None


def clock(seconds: float) -> str:
    """A duration as hours, minutes and seconds: 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"
