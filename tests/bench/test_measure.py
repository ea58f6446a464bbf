"""Pairs of runs, their ratios, the search, the agreement and the memory, by works whose cost is
known.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from reasontrain.bench import measure as module
from reasontrain.bench.case import BenchCase, BenchMachine, Goal, Numbers, Variant, Work
from reasontrain.bench.measure import Measured, Trial, measure
from reasontrain.types import RunError
from tests.bench.toys import MACHINE, DecodeInputs, row, setup

MIB = 2**20


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> DecodeInputs:
    found = DecodeInputs()
    monkeypatch.setattr(module, "time", found)
    return found


def measured(some: BenchCase, runs: int = 1) -> Measured:
    return measure(
        some,
        MACHINE,
        runs=runs,
    )


def test_a_ratio_is_subject_over_peer_pair_by_pair(clock: DecodeInputs):
    # the first run of each compares; then 1, 4, 3 and 4, 8, 4: pairs 1/4, 4/8, 3/4 (of the medians
    # it would be 3/4)
    found = measured(
        row(clock.variant("we", [9.0, 1.0, 4.0, 3.0]), clock.variant("they", [9.0, 4.0, 8.0, 4.0])),
        runs=3,
    )
    spread = found.time_ratio
    assert (spread.low, spread.median, spread.high) == (0.25, 0.5, 0.75)
    assert (found.subject.seconds, found.peer.seconds) == ((1.0, 4.0, 3.0), (4.0, 8.0, 4.0))
    assert (found.subject.median, found.peer.median) == (3.0, 4.0)


def test_sides_go_first_in_turn(clock: DecodeInputs):
    measured(row(clock.variant("we", [1.0]), clock.variant("they", [1.0])), runs=3)
    assert clock.calls[2:8] == ["we", "they", "they", "we", "we", "they"]


def test_the_fastest_way_enters_by_its_better_run_after_a_warm_one(clock: DecodeInputs):
    slow = clock.variant(
        "slow", [0.1, 5.0, 5.0], chunk=1
    )  # its first run is quick, and does not count
    quick = clock.variant("quick", [60.0, 9.0, 2.0], chunk=2)
    middle = clock.variant("middle", [3.0], chunk=3)
    found = measured(row(clock.variant("we", [1.0]), (slow, quick, middle)))
    trials = [
        Trial(settings={"chunk": chunk}, seconds=seconds)
        for chunk, seconds in ((1, 5.0), (2, 2.0), (3, 3.0))
    ]
    assert list(found.peer.trials) == trials
    assert found.peer.settings == {"chunk": 2}
    assert found.peer.seconds == (2.0,)
    assert found.subject.trials == ()


def test_a_long_case_searches_with_one_run_of_each_way(clock: DecodeInputs):
    ways = tuple(clock.variant(f"way {n}", [float(n)], way=n) for n in (20, 10))
    long_case = replace(row(clock.variant("we", [1.0]), ways), is_long=True)
    found = measured(long_case)
    assert [trial.seconds for trial in found.peer.trials] == [20.0, 10.0]
    assert clock.calls[:3] == ["way 20", "way 10", "we"]


@pytest.mark.parametrize(
    ("goal", "met"),
    [
        (Goal(of="time", at_most=0.25), True),  # 1 s beside 4 s
        (Goal(of="time", at_most=0.24), False),
        (Goal(of="seconds", at_most=1.0), True),
        (Goal(of="seconds", at_most=0.9), False),
    ],
)
def test_goals_are_met_up_to_their_bound(clock: DecodeInputs, goal: Goal, met: bool):
    (found,) = measured(row(clock.variant("we", [1.0]), clock.variant("they", [4.0]), goal)).goals
    assert found.goal == goal
    assert found.met is met
    assert found.measured == {"time": 0.25, "seconds": 1.0}[goal.of]


@pytest.mark.parametrize(
    ("peer", "message"),
    [
        (
            {"loss": 2.01, "norm": 1.0},
            "loss is 2 by we and 2.01 by they",
        ),  # 0.005 of the larger apart, 0.001 is allowed
        ({"loss": 2.0, "norm": -1.0}, "norm is 1 by we and -1 by they"),
        ({"loss": 2.01, "norm": math.nan}, "norm is 1 by we and nan by they"),
        ({"loss": 2.0}, r"we gives \['loss', 'norm'\], and they <b> gives \['loss'\]"),
    ],
)
def test_sides_that_disagree_are_not_compared(clock: DecodeInputs, peer: Numbers, message: str):
    subject = clock.variant("we", [1.0], {"loss": 2.0, "norm": 1.0})
    with pytest.raises(RunError, match=message):
        measured(row(subject, clock.variant("they", [1.0], peer)))
    assert clock.calls == ["we", "they"]


def test_the_largest_difference_is_kept(
    clock: DecodeInputs,
):  # |4 - 3.998| / 4 = 5e-4; zero beside zero is no difference
    subject = clock.variant("we", [1.0], {"loss": 4.0, "none": 0.0})
    assert measured(
        row(subject, clock.variant("they", [1.0], {"loss": 3.998, "none": 0.0}))
    ).difference == pytest.approx(5e-4)


def holding(mib: int) -> Variant:
    """A work that fills this many MiB and drops them."""

    def work() -> Numbers:
        return {"first": float(torch.ones(mib * MIB // 4)[0])}

    return Variant(settings={}, setup=setup(work))


def test_memory_is_what_a_run_adds_at_its_highest():
    found = measured(
        row(
            holding(64),
            holding(128),
            Goal(of="memory", at_most=0.55),
            Goal(of="memory", at_most=0.45),
        )
    )
    assert found.subject.peak_bytes == pytest.approx(64 * MIB, rel=0.03)
    assert found.peer.peak_bytes == pytest.approx(128 * MIB, rel=0.03)
    assert found.memory_ratio == found.subject.peak_bytes / found.peer.peak_bytes
    assert [met.met for met in found.goals] == [True, False]


def keeping(mib: int, more: int) -> Variant:
    """A work that keeps this many MiB from its setup on, and fills some more in a run."""

    @contextmanager
    def context() -> Iterator[Work]:
        kept = torch.ones(mib * MIB // 4)
        yield lambda: {"first": float(kept[0] * torch.ones(more * MIB // 4)[0])}

    return Variant(settings={}, setup=context)


def test_resident_memory_is_what_a_side_keeps_and_what_a_run_adds():
    found = measured(row(keeping(100, 30), keeping(40, 60)))
    for side, mib in ((found.subject, 130), (found.peer, 100)):
        assert side.resident_bytes == pytest.approx(mib * MIB, rel=0.03)


def test_where_memory_cannot_be_seen_its_goal_is_not_met(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(module, "CLEAR", tmp_path / "none")
    found = measured(row(holding(1), holding(1), Goal(of="memory", at_most=9.0)))
    assert found.memory_ratio is None
    assert [(met.measured, met.met) for met in found.goals] == [(None, False)]


def test_threads_are_the_rows_own_and_are_put_back(clock: DecodeInputs):
    seen = list[int]()

    def work() -> Numbers:
        seen.append(torch.get_num_threads())
        return {}

    def broken() -> Numbers:
        raise ZeroDivisionError

    machine = BenchMachine(device=torch.device("cpu"), quick=True, threads=2)
    subject, theirs = (Variant(settings={}, setup=setup(each)) for each in (work, broken))
    with pytest.raises(ZeroDivisionError):
        measure(
            row(subject, theirs),
            machine,
            runs=1,
        )
    assert seen == [2]
    assert torch.get_num_threads() == 1
