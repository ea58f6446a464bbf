"""`reasontrain plan` as a person types it."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from reasontrain.cli import main

RECIPES = Path(__file__).parents[2] / "recipes"
QWEN3, TINY = str(RECIPES / "tip_qwen3.yaml"), str(RECIPES / "tiny" / "tip.yaml")


@pytest.mark.parametrize(
    "path",
    sorted(set(RECIPES.rglob("*.yaml")) - {RECIPES / "claims.yaml"}),
    ids=lambda path: path.stem,
)
def test_every_recipe_has_a_plan(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(path)]) == 0
    said = capsys.readouterr().out
    assert "nothing was loaded, downloaded or measured" in said
    assert "FIT" in said
    assert "with these processes a step takes" in said


def test_what_does_not_fit_is_said_with_what_would(capsys: pytest.CaptureFixture[str]) -> None:
    alone = ["plan", QWEN3, "cluster=null", "learn.zero=null"]
    assert main(alone) == 0
    said = capsys.readouterr().out
    assert "trainable 4,022,468,096, teacher 8,190,735,360" in said
    assert "DOES NOT FIT" in said
    (line,) = (line for line in said.splitlines() if line.startswith("it would fit with: "))
    overrides = shlex.split(line.removeprefix("it would fit with: ").partition(" (")[0])
    assert main([*alone, *overrides]) == 0
    said = capsys.readouterr().out
    assert "FITS" in said
    assert "{CPU: 1, GPU: 1}" in said


def test_rates_are_options_and_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    rates = [
        "--tflops",
        "123",
        "--intra-gb-s",
        "45",
        "--inter-gb-s",
        "6",
        "--hbm-tb-s",
        "7",
        "--gpus-per-node",
        "4",
    ]
    assert main(["plan", TINY, *rates]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "at 123 TFLOP/s, 45 GB/s in a node of 4, 6 GB/s between nodes, 7 TB/s of memory" in said


def test_for_machines(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", TINY, "--json", "--response-tokens", "100"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["work"]["response_tokens"] == 100
    assert plan["fits"] is True
    assert plan["roles"][0]["peak"] == max(plan["roles"][0]["total"].values())
    assert len(plan["scaling"]) == 7  # 64 rollouts
    assert plan["duration"]["total_s"] > plan["duration"]["step_s"] > 0


def test_a_model_of_the_hub_without_a_shape_is_one_sentence(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["plan", QWEN3, "teacher.shape=null"]) == 0  # a usual model
    assert "teacher 8,190,735,360" in capsys.readouterr().out
    assert main(["plan", QWEN3, "teacher={path: someone/new}"]) == 2
    assert "write its sizes under `teacher.shape`" in capsys.readouterr().err


def test_a_machine_without_memory_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", TINY, "--memory-gib", "0"]) == 2
    assert "--memory-gib must be above 0" in capsys.readouterr().err
