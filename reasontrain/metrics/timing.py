"""Who has the time of a step: the parts that it is divided into, and the stopwatch that divides it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor

LearnerPart = Literal[
    "evidence_forward",  # the policy without gradient
    "frozen_forward",  # teacher, reference and history, without gradient
    "trunk_forward",
    # from the gradient's arrival at the trunk on; with checkpointing also what is computed again
    "trunk_backward",
    # heads, losses and statistics, and what of the backward pass comes before the trunk
    "vocabulary",
    "optimizer",
    # for other ranks, where they add up numbers; inside a forward or backward it counts as that
    "wait",
]
Part = Literal[LearnerPart, "sample", "score", "sync"]
LEARNER_PARTS: tuple[LearnerPart, ...] = get_args(LearnerPart)
ORCHESTRATION = "orchestration"
"""What is left of a step: batches made and cut, rules evaluated, records written, processes asked.
"""
PARTS = ("sample", "score", *LEARNER_PARTS, "sync", ORCHESTRATION)
"""They make up a step, and none is part of another."""

Moment = float | torch.cuda.Event
CPU = torch.device("cpu")


def key(part: str) -> str:
    """The name of a part's seconds in metrics.jsonl."""
    return f"time_{part}_s"


class Stopwatch:
    """Gives every moment to one part: the seconds of a block are its own, without those of the
    blocks inside it.

    On a GPU a moment is an event in the stream, so that nobody waits before `read`: the seconds are
    the device's.
    """

    def __init__(self, device: torch.device = CPU) -> None:
        self.device = device
        self._open: list[Part] = []
        self._marks: list[tuple[Part | None, Moment]] = []

    @contextmanager
    def __call__(self, part: Part) -> Iterator[None]:
        """The time of this block is this part's."""
        self._open.append(part)
        self._mark()
        try:
            yield
        finally:
            self._open.pop()
            self._mark()

    def start_phase_on_grad(self, tensor: Tensor, part: Part) -> None:
        """From when a gradient arrives at this tensor, the innermost open block is this part's."""
        if tensor.requires_grad:
            tensor.register_hook(lambda gradient: self._turn(part))

    def read(self) -> dict[Part, float]:
        """Seconds of each part that had any, since the last time this was asked; on a GPU it waits
        for the device.
        """
        marks, self._marks = self._marks, []
        if marks and isinstance(marks[-1][1], torch.cuda.Event):
            marks[-1][1].synchronize()
        seconds: dict[Part, float] = {}
        for (part, start), (_, end) in pairwise(marks):
            if part is not None:
                seconds[part] = seconds.get(part, 0.0) + _between(start, end)
        return seconds

    def _turn(self, part: Part) -> None:
        self._open[-1] = part
        self._mark()

    def _mark(self) -> None:
        self._marks.append((self._open[-1] if self._open else None, _now(self.device)))


def _now(device: torch.device) -> Moment:
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _between(start: Moment, end: Moment) -> float:
    if isinstance(start, torch.cuda.Event):
        assert isinstance(end, torch.cuda.Event), "a stopwatch has one device"
        return float(start.elapsed_time(end)) / 1000
    assert isinstance(end, float), "a stopwatch has one device"
    return end - start
