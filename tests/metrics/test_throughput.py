"""How fast a step was, from numbers made by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from reasontrain.metrics.throughput import Speed, matrix_rate
from reasontrain.metrics.timing import PARTS, key

STATS = {
    **{
        key(part): seconds
        for part, seconds in zip(
            PARTS[:-1], (5.0, 0.5, 0.5, 1.0, 0.5, 1.0, 0.5, 0.25, 0.25, 0.25), strict=True
        )
    },
    "sampled_tokens": 400.0,
    "trained_tokens": 100.0,
    "tflop_sampled": 2.0,
    "tflop_evidence": 1.0,
    "tflop_learned": 2.0,
    "tflop_recomputed": 0.5,
}


def speed(*, alone: bool = True) -> Speed:
    return Speed(count=lambda rollouts, batch, weight_BT: {}, rate=1e12, alone=alone)


def test_parts_add_up_to_the_step() -> None:
    """9.75 of 10 s have a name."""
    found = STATS | speed().of(STATS, 10.0)
    assert found["time_orchestration_s"] == 0.25
    assert sum(found[key(part)] for part in PARTS) == found["time_step_s"] == 10.0
    assert (found["tokens_per_s"], found["trained_tokens_per_s"]) == (40.0, 10.0)


def test_utilisation_by_hand() -> None:
    """At 1 TFLOP/s: 3 TFLOP in the 4 s of the learner, 3.5 with repeats, 5 of all in 10 s."""
    found = speed().of(STATS, 10.0)
    assert (found["mfu_update"], found["hfu_update"], found["mfu_step"]) == (0.75, 0.875, 0.5)


def test_what_other_devices_compute_is_no_utilisation_of_these() -> None:
    assert "mfu_step" not in speed(alone=False).of(STATS, 10.0)
    uncounted = {name: value for name, value in STATS.items() if not name.startswith("tflop_")}
    assert not any("fu_" in name for name in speed().of(uncounted, 10.0))


def test_the_rate_is_that_of_the_fastest_product(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products of 2 x 1024^3 operations in 0.5, 0.25 and 1 s; the clock is read for the limit, and
    around each.
    """
    moments = iter([0.0, 0.0, 0.0, 0.5, 0.05, 1.0, 1.25, 0.06, 2.0, 3.0, 0.2])
    monkeypatch.setattr("reasontrain.metrics.throughput.time.perf_counter", lambda: next(moments))
    assert matrix_rate(torch.device("cpu"), torch.float32) == 2 * 1024**3 / 0.25


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_dtype_has_a_rate(dtype: torch.dtype) -> None:
    assert 1e8 < matrix_rate(torch.device("cpu"), dtype) < 1e14


def test_no_share_is_above_one_although_the_rate_was_measured_too_low() -> None:
    """3.5 TFLOP in the learner's 4 s are 0.875 TFLOP/s, which becomes the rate."""
    slow = replace(speed(), rate=0.5e12)
    found = slow.of(STATS, 10.0)
    assert found["hfu_update"] == 1.0
    assert found["mfu_update"] == pytest.approx(0.75 / 0.875)
    assert found["mfu_step"] == pytest.approx(0.5 / 0.875)
    assert slow.of(STATS | {"tflop_recomputed": 0.0}, 10.0) == found | {
        "hfu_update": found["mfu_update"]
    }
