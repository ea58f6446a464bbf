"""A record whose figures are round."""

from __future__ import annotations

from reasontrain.bench.case import Goal
from reasontrain.bench.measure import GoalResult, Measured, SideMeasured, Spread, Trial
from reasontrain.bench.record import BenchRecord
from reasontrain.evaluation.provenance import Provenance

MIB = 2**20


def side(name: str, seconds: tuple[float, ...], peak_mib: int | None) -> SideMeasured:
    best = {"chunk": 4096, "packing": True}
    trials = (
        Trial(settings=best, seconds=2.0),
        Trial(settings={"chunk": 32, "packing": False}, seconds=9.0),
    )
    peak_bytes = None if peak_mib is None else peak_mib * MIB
    return SideMeasured(
        name=name,
        settings=best,
        trials=trials if "<" in name else (),
        seconds=seconds,
        peak_bytes=peak_bytes,
        resident_bytes=None if peak_mib is None else (peak_mib + 100) * MIB,
    )


def measured(
    name: str, ratios: tuple[float, float, float], *, memory: float | None = 0.5
) -> Measured:
    peaks = (None, None) if memory is None else (32, 64)
    met = GoalResult(goal=Goal(of="time", at_most=0.5), measured=ratios[1], met=ratios[1] <= 0.5)
    missed = GoalResult(goal=Goal(of="memory", at_most=0.25), measured=memory, met=False)
    return Measured(
        name=name,
        description="a loss",
        work={"N": 8192, "dtype": "float32"},
        threads=2,
        units=("rows", 8192.0),
        subject=side("reasontrain", (1.0, 2.0, 4.0), peaks[0]),
        peer=side("they <b>", (4.0, 4.0, 4.0), peaks[1]),
        time_ratio=Spread(low=ratios[0], median=ratios[1], high=ratios[2]),
        memory_ratio=memory,
        difference=1e-6,
        goals=(met, missed),
        remark="A remark.",
    )


RECORD = BenchRecord(
    table="toys",
    device="cpu",
    origin=Provenance(
        commit="0123456789abcdef", changed=("x.py",), hardware="a processor, 2 cores"
    ),
    versions={"torch": "2.13.0", "trl": "1.16.0"},
    runs=3,
    quick=True,
    rows=(measured("fast", (0.25, 0.5, 1.0)), measured("slow", (1.0, 2.0, 2.0), memory=None)),
)
