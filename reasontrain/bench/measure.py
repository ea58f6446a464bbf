"""Times and memory of a case.

Contestants run in turn, so that other load on the machine affects both equally.
"""

from __future__ import annotations

import ctypes
import gc
import itertools
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
from reasontrain.metrics.memory import PROCESS, sizes
from reasontrain.types import RunError

logger = logging.getLogger(__name__)

CLEAR = Path("/proc/self/clear_refs")


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A variant in the search: its settings, and the seconds of its fastest run."""

    settings: Mapping[str, Setting]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class SideMeasured:
    """The measurements of a contestant with its best settings.

    `seconds` has one entry per run. `peak_bytes` is the peak of the memory that one run adds, and
    `resident_bytes` that peak with everything that the contestant holds between runs (models,
    optimiser, caches); None if it was not measured.
    """

    name: str
    settings: Mapping[str, Setting]
    trials: tuple[Trial, ...]
    seconds: tuple[float, ...]
    peak_bytes: int | None
    resident_bytes: int | None = None

    @property
    def median(self) -> float:
        """Median of the runs, in seconds."""
        return statistics.median(self.seconds)


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Minimum, median and maximum."""

    low: float
    median: float
    high: float


@dataclass(frozen=True, kw_only=True)
class GoalResult:
    """A goal with its measured value; None means not measured, and the goal is not met."""

    goal: Goal
    measured: float | None
    met: bool


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A measured case.

    `time_ratio` is the ratio of subject to peer over pairs of consecutive runs. `difference` is the
    largest relative difference between the contestants' numbers.
    """

    name: str
    description: str
    work: Mapping[str, Setting]
    threads: int
    units: tuple[str, float]
    subject: SideMeasured
    peer: SideMeasured
    time_ratio: Spread
    memory_ratio: float | None
    difference: float
    goals: tuple[GoalResult, ...]
    remark: str


def measure(row: BenchCase, machine: BenchMachine, *, runs: int) -> Measured:
    """Search the variants of both contestants, compare their numbers, and time them in turn.

    Args:
        row: the case.
        machine: device, threads and thoroughness.
        runs: timed runs of each contestant.

    Returns:
        Seconds, ratios, peak memory in bytes, and the goals.

    Raises:
        RunError: the numbers differ by more than the tolerance, so the contestants did different
            work and their ratio would be meaningless.
    """
    with _threads(machine), _cheap_collections():
        chosen = [
            _search(contestant, machine, once=row.is_long) for contestant in (row.subject, row.peer)
        ]
        with ExitStack() as stack:
            works: list[Work] = []
            numbers: list[Numbers] = []
            in_use = [_held_bytes(machine.device)]
            for variant, _ in chosen:
                works.append(stack.enter_context(variant.setup()))
                numbers.append(works[-1]())
                in_use.append(_held_bytes(machine.device))
            held = [
                None if before is None or after is None else max(0, after - before)
                for before, after in itertools.pairwise(in_use)
            ]
            difference = _difference(row, numbers)
            seconds: tuple[list[float], list[float]] = ([], [])
            for run in range(runs):
                for index in (0, 1) if run % 2 == 0 else (1, 0):
                    seconds[index].append(_timed(works[index], machine.device))
            peaks = [_peak_bytes(work, machine.device) if row.memory else None for work in works]
    ratios = [subject / peer for subject, peer in zip(*seconds, strict=True)]
    time_ratio = Spread(low=min(ratios), median=statistics.median(ratios), high=max(ratios))
    memory_ratio = None if peaks[0] is None or not peaks[1] else peaks[0] / peaks[1]
    sides = [
        SideMeasured(
            name=contestant.name,
            settings=variant.settings,
            trials=trials,
            seconds=tuple(times),
            peak_bytes=peak,
            resident_bytes=None if peak is None or kept is None else kept + peak,
        )
        for contestant, (variant, trials), times, peak, kept in zip(
            (row.subject, row.peer), chosen, seconds, peaks, held, strict=True
        )
    ]
    figures = {"time": time_ratio.median, "memory": memory_ratio, "seconds": sides[0].median}
    return Measured(
        name=row.name,
        description=row.description,
        work=row.work,
        threads=machine.threads,
        units=row.units,
        subject=sides[0],
        peer=sides[1],
        time_ratio=time_ratio,
        memory_ratio=memory_ratio,
        difference=difference,
        goals=tuple(_goal_result(goal, figures[goal.of]) for goal in row.goals),
        remark=" ".join(filter(None, (row.remark, row.after()))),
    )


def _goal_result(goal: Goal, measured: float | None) -> GoalResult:
    return GoalResult(
        goal=goal, measured=measured, met=measured is not None and measured <= goal.at_most
    )


def _search(
    contestant: Contestant, machine: BenchMachine, *, once: bool
) -> tuple[Variant, tuple[Trial, ...]]:
    """The fastest variant, by the faster of two runs after a warm-up run, or by one run."""
    if len(contestant.variants) == 1:
        return contestant.variants[0], ()
    trials = []
    for variant in contestant.variants:
        with variant.setup() as work:
            if not once:
                work()
            seconds = min(_timed(work, machine.device) for _ in range(1 if once else 2))
            trials.append(Trial(settings=variant.settings, seconds=seconds))
        logger.info(f"  {contestant.name} {_words(variant.settings)}: {trials[-1].seconds:.3g} s")
    best = min(range(len(trials)), key=lambda index: trials[index].seconds)
    return contestant.variants[best], tuple(trials)


def _words(settings: Mapping[str, Setting]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items())


def _difference(row: BenchCase, numbers: Sequence[Numbers]) -> float:
    """The largest relative difference between the numbers of subject and peer."""
    subject, peer = numbers
    if subject.keys() != peer.keys():
        raise RunError(
            f"{row.name}: {row.subject.name} gives {sorted(subject)}, and {row.peer.name} gives "
            f"{sorted(peer)}; they must give the same numbers"
        )
    difference = {
        name: abs(subject[name] - peer[name]) / max(abs(subject[name]), abs(peer[name]), 1e-30)
        for name in subject
    }
    worst = max(
        difference, key=lambda name: math.inf if math.isnan(difference[name]) else difference[name]
    )
    if not difference[worst] <= row.tolerance:
        raise RunError(
            f"{row.name}: {worst} is {subject[worst]:.6g} by {row.subject.name} and "
            f"{peer[worst]:.6g} by {row.peer.name}; they differ by more than {row.tolerance:g} of "
            f"the larger, so they did different work and their times are not compared"
        )
    return difference[worst]


def _timed(work: Work, device: torch.device) -> float:
    """Seconds of one run, including outstanding work of the device."""
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
    """The peak of the memory that one run adds, in bytes: of the GPU, or of this process.

    None for a CPU on systems other than Linux.
    """
    before = _held_bytes(device)
    if before is None:
        return None
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        work()
        return torch.cuda.max_memory_allocated(device) - before
    # Resets the high-water mark VmHWM to the memory in use now (proc(5)).
    CLEAR.write_text("5", encoding="ascii")
    work()
    return max(0, sizes(PROCESS)["VmHWM"] - before)


def _held_bytes(device: torch.device) -> int | None:
    """Memory in use now, in bytes; None for a CPU on systems other than Linux."""
    gc.collect()
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    if not CLEAR.exists():
        return None
    # freed memory that malloc still holds would hide a part of the peak
    ctypes.CDLL(None).malloc_trim(0)
    return sizes(PROCESS)["VmRSS"]


@contextmanager
def _cheap_collections() -> Iterator[None]:
    """Let collections pass over the objects that exist before the block.

    With every peer imported there are millions, and a collection would take half a second.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@contextmanager
def _threads(machine: BenchMachine) -> Iterator[None]:
    """Set torch's number of threads to the machine's during the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(machine.threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
