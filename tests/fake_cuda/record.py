"""Counts of what a run on the fake device does: by phase of a step, and by line of source."""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

ROOT = Path(__file__).parents[2]
PACKAGES = (f"{ROOT}/reasontrain/", "/site-packages/transformers/", "/site-packages/peft/")
"""Code whose lines are named."""
ELSEWHERE = "elsewhere"
"""The phase of everything that is in no other."""

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def source_line() -> str:
    """The innermost line of this package or of a model library that is being run."""
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        for package in PACKAGES:
            if package in name:
                inside = name.partition(package)[2]
                return f"{Path(package).name}/{inside}:{frame.f_lineno}"
        frame = frame.f_back
    return "autograd"  # its threads run no line of ours


@dataclass
class Record:
    """Counts of one run.

    Attributes:
        mixes: operations on tensors of both devices, with the line.
        syncs: waits of the host for the device, by phase, then by line and kind.
        uploads: copies to the device that the host waits for, by phase and line.
        operations: ATen calls on tensors of the device, by phase.
        calls: how often each phase was entered.
    """

    mixes: Counter[str] = field(default_factory=Counter)
    syncs: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    uploads: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    operations: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)


class Recorder:
    """Adds to the record of the run that goes on.

    Attributes:
        record: the record.
        phase: the phase of a step that is being run, in whichever thread.
    """

    def __init__(self) -> None:
        self.record = Record()
        self.phase = ELSEWHERE

    def mix(self, operation: str, reason: str) -> str:
        """Note a mix of devices; return the message of the error."""
        message = f"{operation}: {reason} at {source_line()}"
        self.record.mixes[message] += 1
        return message

    def sync(self, kind: str) -> None:
        """Note that the host waits for the device."""
        self.record.syncs[self.phase][f"{source_line()} {kind}"] += 1

    def upload(self) -> None:
        """Note a copy to the device from memory that is not pinned."""
        self.record.uploads[self.phase][source_line()] += 1

    def operation(self) -> None:
        """Note an ATen call on tensors of the device."""
        self.record.operations[self.phase] += 1

    @contextmanager
    def in_phase(self, phase: str) -> Iterator[None]:
        """Attribute what happens in the block to this phase."""
        outer = self.phase
        self.phase = phase
        self.record.calls[phase] += 1
        try:
            yield
        finally:
            self.phase = outer

    def as_phase(
        self, phase: str, function: Callable[Arguments, Result]
    ) -> Callable[Arguments, Result]:
        """The same function, whose calls are a phase."""

        @wraps(function)
        def within(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
            with self.in_phase(phase):
                return function(*args, **kwargs)

        return within


RECORDER = Recorder()
"""The recorder of this process."""
