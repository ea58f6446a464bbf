"""Where the time of a run went, from steps made by hand."""

from __future__ import annotations

import json
import math

import pytest

from reasontrain.metrics.timing import PARTS
from reasontrain.report import write_report
from reasontrain.report.profile import LABELS, TONES, profile
from reasontrain.report.run import RunRecord, read_run
from reasontrain.report.summary import training_s


def step(number: int, seconds: float) -> dict[str, float]:
    """A fifth is sampled, the rest learned; the last step of a run has no numbers of its own."""
    times = {
        "time_sample_s": 0.2 * seconds,
        "time_trunk_backward_s": 0.8 * seconds,
        "time_wait_s": 0.0,
        "time_step_s": seconds,
    }
    return {"step": number, **times, "tokens_per_s": 10.0 * number, "mfu_update": 0.4}


def test_the_median_step_is_a_real_one_and_its_shares_add_up() -> None:
    run = RunRecord(
        name="r", steps=(step(1, 100.0), step(2, 4.0), step(3, 2.0), {"step": 4.0, "loss": 1.0})
    )
    found = profile(run)
    assert found is not None
    assert (found.step, found.seconds, found.sampled_per_s, found.mfu_update) == (2, 4.0, 20.0, 0.4)
    assert math.isnan(found.mfu_step)
    assert [(part.name, part.share) for part in found.parts] == [
        ("sample", pytest.approx(0.2)),
        ("trunk_backward", 0.8),
    ]
    assert sum(part.seconds for part in found.parts) == pytest.approx(found.seconds)
    assert (
        sum(part.run_seconds for part in found.parts)
        == pytest.approx(training_s(run))
        == pytest.approx(106.0)
    )


def test_a_run_without_times_has_none() -> None:
    assert profile(RunRecord(name="r", steps=({"step": 1.0, "loss": 1.0},))) is None


def test_every_part_has_a_name_and_a_colour_of_its_own() -> None:
    assert tuple(LABELS) == tuple(TONES) == PARTS
    assert len(set(TONES.values())) == len(PARTS)


def test_the_page_and_the_numbers_have_it(run_dir) -> None:
    """Step 30 of 60 has the median length, 1.16 + 0.03 s; nothing was waited for."""
    page, numbers = (path.read_text(encoding="utf-8") for path in write_report(run_dir))
    found = json.loads(numbers)["profile"]
    assert (found["step"], found["seconds"], found["matrix_tflops"]) == (30, 1.19, 0.05)
    assert [part["name"] for part in found["parts"]] == [part for part in PARTS if part != "wait"]
    assert sum(part["share"] for part in found["parts"]) == pytest.approx(1)
    assert 'aria-label="A step of 1.2\u202fs: sampling 42.0\u202f%, scoring 1.7\u202f%' in page
    assert "including recomputation" in page
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    same = [row | {"hfu_update": row["mfu_update"]} for row in rows]
    (run_dir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in same))
    assert "including recomputation" not in write_report(run_dir)[0].read_text(encoding="utf-8")
    assert profile(read_run(run_dir)) is not None
