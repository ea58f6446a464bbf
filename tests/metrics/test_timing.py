"""The stopwatch, with clocks made by hand: one that is read at once, and one whose events a device
passes later.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from reasontrain.metrics import timing
from reasontrain.metrics.timing import PARTS, Stopwatch


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the clock will say, one after another."""
    moments: list[float] = []
    monkeypatch.setattr(timing.time, "perf_counter", lambda: moments.pop(0))
    return moments


def test_a_moment_belongs_to_the_innermost_block(clock: list[float]) -> None:
    """Sampling from 0 to 2, nobody to 3, trunk to 4, vocabulary to 7, trunk again to 9."""
    clock += [0.0, 2.0, 3.0, 4.0, 7.0, 9.0]
    watch = Stopwatch()
    with watch("sample"):
        pass
    with watch("trunk_forward"), watch("vocabulary"):
        pass
    assert watch.read() == {"sample": 2.0, "trunk_forward": 3.0, "vocabulary": 3.0}
    assert watch.read() == {}


def test_a_gradient_that_arrives_turns_the_block_into_another_part(clock: list[float]) -> None:
    """The block begins at 0; the gradient of y, not that of z, is there at 3; the block ends at 10.

    Twice, the second 1 long.
    """
    clock += [0.0, 3.0, 10.0, 20.0, 21.0]
    watch, x = Stopwatch(), torch.ones(2, requires_grad=True)
    y = 2 * x
    watch.start_phase_on_grad(y, "trunk_backward")
    watch.start_phase_on_grad(torch.ones(2), "trunk_backward")  # no gradient comes here
    z = (y * y).sum()
    with watch("vocabulary"):
        z.backward()
    with watch("vocabulary"):
        pass
    assert watch.read() == {"vocabulary": 3.0 + 1.0, "trunk_backward": 7.0}
    assert x.grad is not None
    assert x.grad.tolist() == [8.0, 8.0]


def test_a_block_that_fails_ends(clock: list[float]) -> None:
    clock += [0.0, 1.0, 2.0, 4.0]
    watch = Stopwatch()
    with pytest.raises(KeyError), watch("sync"):
        raise KeyError
    with watch("score"):
        pass
    assert watch.read() == {"sync": 1.0, "score": 2.0}


class Event(torch.cuda.Event):
    """An event that a device passes when it is waited for: before, nobody may ask for its time."""

    times: Iterator[float]
    waited = 0

    def __new__(cls, *, enable_timing: bool) -> Event:
        assert enable_timing
        return object.__new__(cls)

    def __init__(self, *, enable_timing: bool) -> None:
        pass

    def record(self) -> None:
        self.ms = next(Event.times)

    def synchronize(self) -> None:
        Event.waited += 1

    def elapsed_time(self, end: Event) -> float:
        assert Event.waited
        return end.ms - self.ms


def test_a_device_is_waited_for_once_when_the_watch_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Milliseconds become seconds."""
    monkeypatch.setattr(torch.cuda, "Event", Event)
    Event.times, Event.waited = iter([0.0, 500.0, 2000.0, 2500.0]), 0
    watch = Stopwatch(torch.device("cuda"))
    with watch("trunk_forward"), watch("vocabulary"):
        pass
    assert Event.waited == 0
    assert watch.read() == {"trunk_forward": 1.0, "vocabulary": 1.5}
    assert Event.waited == 1


def test_no_part_is_named_twice() -> None:
    assert len(set(PARTS)) == len(PARTS) == 11
