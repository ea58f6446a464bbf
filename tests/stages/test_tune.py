"""The recipe of a tuning stage, whose number of steps is known only after sampling."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reasontrain.recipe import TuneStage, build
from reasontrain.recipe.validation import validation_errors
from reasontrain.stages.tune import tuning
from tests.stages.test_sample import recipe


@pytest.mark.parametrize(("num", "steps", "warmup"), [(5, 3, 2), (40, 20, 10), (1, 1, 0)])
def test_a_warm_up_that_is_too_long_for_what_was_sampled_is_shortened(
    num: int, steps: int, warmup: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "positive.jsonl"
    row = {"prompt": "1+1?", "response": "2", "answer": "2"}
    path.write_text("".join(json.dumps(row | {"id": str(i)}) + "\n" for i in range(num)))
    content = {
        "name": "positive",
        "demonstrations": str(path),
        "epochs": 1,
        "learn": {"lr": 1e-3, "rollouts_per_step": 2, "warmup_steps": 10},
    }
    tuned = tuning(build(TuneStage, content, "test"), recipe(), tmp_path / "positive")
    assert (tuned.steps, tuned.learn.warmup_steps) == (steps, warmup)
    assert validation_errors(tuned) == []
    assert ("is lowered to" in caplog.text) == (warmup < 10)
