"""Rows whose work takes as long as it says, by a clock that only work moves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

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

MACHINE = BenchMachine(device=torch.device("cpu"), quick=True, threads=1)
SAME: Numbers = {"loss": 2.0}


class DecodeInputs:
    """Stands where the module `time` is asked; `calls` has who worked, in order."""

    def __init__(self) -> None:
        self.now, self.calls = 0.0, list[str]()

    def perf_counter(self) -> float:
        return self.now

    def variant(
        self, name: str, seconds: list[float], gives: Numbers = SAME, **settings: Setting
    ) -> Variant:
        """Each run takes the next of `seconds`, and the last for ever."""
        left = list(seconds)

        def work() -> Numbers:
            self.calls.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]
            return gives

        return Variant(settings=settings, setup=setup(work))


def setup(work: Work) -> Callable[[], object]:
    """A context that gives the work."""

    @contextmanager
    def context() -> Iterator[Work]:
        yield work

    return context


def row(
    subject: Variant | tuple[Variant, ...],
    peer: Variant | tuple[Variant, ...],
    *goals: Goal,
    tolerance: float = 1e-3,
) -> BenchCase:
    """A row of two sides, each of one way or of several."""
    sides = (
        Contestant(name=n, variants=w if isinstance(w, tuple) else (w,))
        for n, w in (("we", subject), ("they <b>", peer))
    )
    mine, theirs = sides
    return BenchCase(
        name="toy",
        description="nothing",
        work={"N": 4096},
        units=("rows", 8.0),
        subject=mine,
        peer=theirs,
        tolerance=tolerance,
        goals=goals,
        remark="A remark.",
    )
