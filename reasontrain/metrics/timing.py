"""Per-phase step timing: the phases of a step, and the stopwatch that measures them."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor

LearnerPart = Literal[
    "evidence_forward",  # the policy, without gradients
    "frozen_forward",  # teacher, reference and history, without gradients
    "trunk_forward",
    # From the arrival of the gradient at the trunk; includes recomputation by checkpointing.
    "trunk_backward",
    # Heads, losses and statistics, and the backward pass until it reaches the trunk.
    "vocabulary",
    "optimizer",
    # Sums over ranks. Communication inside a forward or backward pass counts as that pass.
    "wait",
]
Part = Literal[LearnerPart, "sample", "score", "sync"]
LEARNER_PARTS: tuple[LearnerPart, ...] = get_args(LearnerPart)
ORCHESTRATION = "orchestration"
"""The rest of a step: batches built and divided, rules evaluated, records written, remote calls."""
PARTS = ("sample", "score", *LEARNER_PARTS, "sync", ORCHESTRATION)
"""All phases of a step. They do not overlap, and their times sum to the step's."""

Moment = float | torch.cuda.Event
CPU = torch.device("cpu")


def key(part: str) -> str:
    """The key of a phase's seconds in metrics.jsonl."""
    return f"time_{part}_s"


class Stopwatch:
    """A stopwatch that attributes each moment to one phase.

    Blocks nest: the seconds of a block exclude those of the blocks inside it. On a GPU it records
    events in the stream, so that nothing waits before `read`, and the seconds are the device's.
    """

    def __init__(self, device: torch.device = CPU) -> None:
        self.device = device
        self._open: list[Part] = []
        self._marks: list[tuple[Part | None, Moment]] = []

    @contextmanager
    def __call__(self, part: Part) -> Iterator[None]:
        """Attribute the time of this block to `part`."""
        self._open.append(part)
        self._mark()
        try:
            yield
        finally:
            self._open.pop()
            self._mark()

    def start_phase_on_grad(self, tensor: Tensor, part: Part) -> None:
        """Attribute the innermost open block to `part` from when `tensor` gets its gradient."""
        if tensor.requires_grad:
            # The hook runs in backward, between the phases that are not separate calls.
            tensor.register_hook(lambda gradient: self._switch(part))

    def read(self) -> dict[Part, float]:
        """Seconds of each phase since the last call; on a GPU this waits for the device."""
        marks = self._marks
        self._marks = []
        if marks and isinstance(marks[-1][1], torch.cuda.Event):
            marks[-1][1].synchronize()
        seconds: dict[Part, float] = {}
        for (part, start), (_, end) in pairwise(marks):
            if part is not None:
                seconds[part] = seconds.get(part, 0.0) + _between(start, end)
        return seconds

    def _switch(self, part: Part) -> None:
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


def start_phase(logger: logging.Logger, what: str) -> None:
    """Log that a phase of a command begins; commands print it with the time since their start."""
    logger.info(what, extra={"phase": True})
