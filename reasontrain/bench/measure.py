"""Times and memory of a row: both sides in turn, so that what else the machine does falls on both
alike.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import math
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from reasontrain.bench.case import (
    BenchCase,
    BenchMachine,
    Contestant,
    Goal,
    Numbers,
    Setting,
    Variant,
    Work,
)
from reasontrain.types import RunError

logger = logging.getLogger(__name__)

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One way in the search: its settings, and the seconds of its faster run of two."""

    settings: Mapping[str, Setting]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class SideMeasured:
    """A side at its best settings.

    `peak_bytes` is what one run of the work adds at its highest; None where nobody can tell.
    """

    name: str
    settings: Mapping[str, Setting]
    tried: tuple[Trial, ...]
    seconds: tuple[float, ...]
    peak_bytes: int | None

    @property
    def median(self) -> float:
        """Seconds."""
        return statistics.median(self.seconds)


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Minimum, median and maximum."""

    low: float
    median: float
    high: float


@dataclass(frozen=True, kw_only=True)
class GoalResult:
    """A goal, what was measured, and whether it was met."""

    goal: Goal
    measured: float | None
    met: bool


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A row as it was measured: ratios are ours to the peer's, pair by pair of runs that followed
    each other.
    """

    name: str
    what: str
    work: Mapping[str, Setting]
    threads: int
    units: tuple[str, float]
    ours: SideMeasured
    peer: SideMeasured
    time_ratio: Spread
    memory_ratio: float | None
    apart: float
    goals: tuple[GoalResult, ...]
    remark: str


def measure(row: BenchCase, place: BenchMachine, *, runs: int) -> Measured:
    """Search the settings of both sides, compare what they give, and time them in turn, `runs`
    times each.

    Raises RunError where the sides do not agree: then they did not do the same work, and no ratio
    means anything.
    """
    with _threads(place):
        ours, peer = (_search(side, place) for side in (row.ours, row.peer))
        with ExitStack() as stack:
            works = [stack.enter_context(way.ready()) for way, _ in (ours, peer)]
            apart = _apart(row, [work() for work in works])
            seconds: tuple[list[float], list[float]] = ([], [])
            for run in range(runs):
                for index in (0, 1) if run % 2 == 0 else (1, 0):
                    seconds[index].append(_timed(works[index], place.device))
            peaks = [_peak_bytes(work, place.device) if row.memory else None for work in works]
    ratios = [mine / theirs for mine, theirs in zip(*seconds, strict=True)]
    time_ratio = Spread(low=min(ratios), median=statistics.median(ratios), high=max(ratios))
    memory_ratio = None if peaks[0] is None or not peaks[1] else peaks[0] / peaks[1]
    sides = [
        SideMeasured(
            name=side.name, settings=way.settings, tried=tried, seconds=tuple(s), peak_bytes=peak
        )
        for side, (way, tried), s, peak in zip(
            (row.ours, row.peer), (ours, peer), seconds, peaks, strict=True
        )
    ]
    figures = {"time": time_ratio.median, "memory": memory_ratio, "seconds": sides[0].median}
    return Measured(
        name=row.name,
        what=row.what,
        work=row.work,
        threads=place.threads,
        units=row.units,
        ours=sides[0],
        peer=sides[1],
        time_ratio=time_ratio,
        memory_ratio=memory_ratio,
        apart=apart,
        goals=tuple(_met(goal, figures[goal.of]) for goal in row.goals),
        remark=" ".join(filter(None, (row.remark, row.after()))),
    )


def _met(goal: Goal, measured: float | None) -> GoalResult:
    return GoalResult(
        goal=goal, measured=measured, met=measured is not None and measured <= goal.at_most
    )


def _search(side: Contestant, place: BenchMachine) -> tuple[Variant, tuple[Trial, ...]]:
    """The fastest way of a side, by the faster of two runs after a first one that warms up."""
    if len(side.ways) == 1:
        return side.ways[0], ()
    tried = []
    for way in side.ways:
        with way.ready() as work:
            work()
            tried.append(
                Trial(
                    settings=way.settings, seconds=min(_timed(work, place.device) for _ in range(2))
                )
            )
        logger.info(f"  {side.name} {_words(way.settings)}: {tried[-1].seconds:.3g} s")
    best = min(range(len(tried)), key=lambda index: tried[index].seconds)
    return side.ways[best], tuple(tried)


def _words(settings: Mapping[str, Setting]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items())


def _apart(row: BenchCase, numbers: Sequence[Numbers]) -> float:
    """The largest relative difference between what the two sides give."""
    ours, peer = numbers
    if ours.keys() != peer.keys():
        raise RunError(
            f"{row.name}: the sides give different things, {sorted(ours)} and {sorted(peer)}"
        )
    apart = {
        name: abs(ours[name] - peer[name]) / max(abs(ours[name]), abs(peer[name]), 1e-30)
        for name in ours
    }
    worst = max(apart, key=lambda name: math.inf if math.isnan(apart[name]) else apart[name])
    if not apart[worst] <= row.tolerance:
        raise RunError(
            f"{row.name}: {worst} is {ours[worst]:.6g} by {row.ours.name} and "
            f"{peer[worst]:.6g} by {row.peer.name}, further "
            f"apart than {row.tolerance:g}: the two do not do the same work, so their "
            f"times are not compared"
        )
    return apart[worst]


def _timed(work: Work, device: torch.device) -> float:
    """Seconds of one run, until the device is done as well."""
    gc.collect()
    _synchronise(device)
    start = time.perf_counter()
    work()
    _synchronise(device)
    return time.perf_counter() - start


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _peak_bytes(work: Work, device: torch.device) -> int | None:
    """What one run adds to the memory in use, at its highest: of the GPU, or of this process (Linux
    only).
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return torch.cuda.max_memory_allocated(device) - before
    if not CLEAR.exists():
        return None
    ctypes.CDLL(None).malloc_trim(
        0
    )  # what is free but was not given back would hide as much of the peak
    CLEAR.write_text("5", encoding="ascii")  # the high-water mark starts again from here
    before = _status_bytes("VmRSS")
    work()
    return max(0, _status_bytes("VmHWM") - before)


def _status_bytes(key: str) -> int:
    """A line of /proc/self/status, which is in kB."""
    lines = STATUS.read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:"))


@contextmanager
def _threads(place: BenchMachine) -> Iterator[None]:
    """As many threads for torch as the rows are measured with."""
    before = torch.get_num_threads()
    torch.set_num_threads(place.threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
