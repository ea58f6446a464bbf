"""Timing profile of a run: parts and speed of the step of median duration."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from reasontrain.metrics.timing import PARTS, key
from reasontrain.report.numbers import Number
from reasontrain.report.run import RunRecord

LABELS = {
    "sample": ("sampling", "rollouts, or demonstrations fetched"),
    "score": ("scoring", "answers graded"),
    "evidence_forward": ("evidence", "the policy's trunk, without gradient"),
    "frozen_forward": ("frozen models", "trunks of teacher, reference and history"),
    "trunk_forward": ("trunk forward", "of the policy, with gradient"),
    "trunk_backward": (
        "trunk backward",
        "with the recomputation of gradient checkpointing",
    ),
    "vocabulary": ("vocabulary", "heads, losses and statistics, with their gradients"),
    "optimizer": ("optimiser", "clipping and update"),
    "wait": ("waiting", "for other ranks, in collectives"),
    "sync": ("sync", "weights to the sampler"),
    "orchestration": (
        "orchestration",
        "the rest: batches and micro-batches, selection, records, calls between processes",
    ),
}
TONES = dict(
    zip(PARTS, ("a", "q4", "c", "e", "b", "f", "d", "q2", "q1", "q3", "none"), strict=True)
)
"""The CSS class of each part's colour; orchestration has no colour."""


@dataclass(frozen=True, kw_only=True)
class PartShare:
    """A part of the step: its seconds, its share of the step, and its seconds in the whole run."""

    name: str
    label: str
    meaning: str
    tone: str
    seconds: float
    share: float
    run_seconds: float


@dataclass(frozen=True, kw_only=True)
class Profile:
    """The step of median duration among those with timings.

    Speeds are in tokens per second; utilisations are shares of the matrix rate. Values that the run
    did not record are NaN.
    """

    step: int
    seconds: float
    parts: tuple[PartShare, ...]
    sampled_per_s: float
    trained_per_s: float
    mfu_update: float
    hfu_update: float
    mfu_step: float
    matrix_tflops: float


def profile(run: RunRecord) -> Profile | None:
    """The profile of a run; None if no step has timings.

    The median of an even number of steps is the lower one.
    """
    timed = [
        row
        for row in run.steps
        if math.isfinite(row.get("time_step_s", math.nan)) and row["time_step_s"] > 0
    ]
    if not timed:
        return None
    row = sorted(timed, key=lambda row: row["time_step_s"])[(len(timed) - 1) // 2]
    return Profile(
        step=int(row["step"]),
        seconds=row["time_step_s"],
        parts=_parts(run, row),
        sampled_per_s=_stated(row, "tokens_per_s"),
        trained_per_s=_stated(row, "trained_tokens_per_s"),
        mfu_update=_stated(row, "mfu_update"),
        hfu_update=_stated(row, "hfu_update"),
        mfu_step=_stated(row, "mfu_step"),
        matrix_tflops=_number(run.environment.get("matrix_tflops", "nan")),
    )


def _parts(run: RunRecord, row: Mapping[str, Number]) -> tuple[PartShare, ...]:
    """The parts with time in this step, in the order of `PARTS`."""
    return tuple(
        PartShare(
            name=part,
            label=LABELS[part][0],
            meaning=LABELS[part][1],
            tone=TONES[part],
            seconds=row[key(part)],
            share=row[key(part)] / row["time_step_s"],
            run_seconds=math.fsum(
                seconds for _, seconds in run.series(key(part)) if math.isfinite(seconds)
            ),
        )
        for part in PARTS
        if row.get(key(part), 0.0) > 0
    )


def _stated(row: Mapping[str, Number], name: str) -> float:
    return float(row.get(name, math.nan))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
