"""`reasontrain score`, and training that reads what it stored, or stores it first; what does not
fit is one sentence.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from pyarrow.parquet import read_table

from reasontrain.cli import main
from reasontrain.models import testbed

RECIPE = """
name: run
steps: 3
model: {path: student}
task: {kind: arithmetic, num_problems: 30}
unconditional: {kind: uncond_tuned, lr: 1.0e-2, rollouts_per_step: 8}
token_selection: {kind: prior}
objective: {kind: nll}
loss_aggregation: response_token_mean
learn: {lr: 1.0e-2, rollouts_per_step: 4, micro_batch_tokens: 300}
"""
COLUMNS = Path("out/stages")


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model."""
    where = tmp_path_factory.mktemp("models") / "student"
    shape = testbed.TinyShape(
        hidden_size=32,
        intermediate_size=48,
        num_layers=1,
        num_heads=2,
        num_key_value_heads=1,
        head_dim=16,
    )
    testbed.build(where, shape)
    return where


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, student: Path) -> None:
    """An empty directory with a recipe and the student."""
    monkeypatch.chdir(tmp_path)
    Path("student").symlink_to(student)
    Path("recipe.yaml").write_text(RECIPE)


def run(command: str, *overrides: str) -> int:
    return main([command, "recipe.yaml", *overrides])


def metrics(name: str = "run") -> list[dict[str, float]]:
    return [json.loads(line) for line in Path(f"out/{name}/metrics.jsonl").read_text().splitlines()]


def test_train_stores_the_column_that_score_stores_and_reads_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("score") == 0
    assert "uncond_tuned scores 30 responses" in capsys.readouterr().out
    (store,) = COLUMNS.glob("uncond_logp-*")
    written = (store / "part-00000.parquet").stat().st_mtime_ns
    assert not Path("out/run").exists()
    assert run("train") == 0
    assert "scores" not in capsys.readouterr().out
    assert run("train", "out=alone") == 0
    assert "uncond_tuned scores 30 responses" in capsys.readouterr().out
    (alone,) = Path("alone/stages").glob("uncond_logp-*")
    assert read_table(alone / "part-00000.parquet").equals(read_table(store / "part-00000.parquet"))
    assert (store / "part-00000.parquet").stat().st_mtime_ns == written
    for record in metrics():
        assert 0 < record["uncond_p_mean"] < 1
        assert record["degenerate_rollouts"] == 0
        assert record["nll"] != pytest.approx(
            record["loss"], abs=1e-6
        )  # untrained: P is nearly uniform
    assert run("train", "name=plain", "token_selection.kind=all") == 0
    assert [r["nll"] for r in metrics("plain")] == pytest.approx(
        [r["loss"] for r in metrics("plain")], abs=1e-6
    )
    assert run("train", "name=zero", "token_selection.alpha=0.0") == 0
    assert [r["loss"] for r in metrics("zero")] == pytest.approx(
        [r["loss"] for r in metrics("plain")], abs=1e-6
    )


def test_two_runs_at_once_make_the_column_once() -> None:
    command = [sys.executable, "-m", "reasontrain.cli", "score", "recipe.yaml"]
    both = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for _ in range(2)
    ]
    said = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert sum(text.count("uncond_tuned scores 30 responses") for text in said) == 1


@pytest.mark.parametrize("mode", ["flipped", "contrast"])
def test_controls_read_the_same_column(mode: str) -> None:
    assert run("train", f"token_selection.mode={mode}") == 0
    assert run("train", "name=other", "token_selection.mode=prior") == 0
    assert len(list(COLUMNS.glob("uncond_logp-*"))) == 1
    assert metrics()[0]["loss"] != metrics("other")[0]["loss"]


def test_other_data_are_scored_anew() -> None:
    assert run("score") == 0
    assert run("score", "task.seed=1") == 0
    assert len(list(COLUMNS.glob("uncond_logp-*"))) == 2


REFUSED: dict[str, tuple[str, tuple[str, ...], str]] = {
    "nothing to score": (
        "score",
        ("token_selection.kind=all",),
        "reads no stored evidence (its rule and objective need: none)",
    ),
    "kind": ("train", ("unconditional.kind=uncond",), "no such kind 'uncond'"),
    "cap": (
        "train",
        ("token_selection.cap=0.5",),
        "token_selection.cap: Input should be greater than or equal to 1",
    ),
    "small_ref without a model": (
        "score",
        ("unconditional.kind=small_ref",),
        "unconditional.model: is needed",
    ),
    "no model": (
        "score",
        ("unconditional.model.path=nothing",),
        "the model nothing cannot be loaded",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_input_is_one_sentence_and_leaves_nothing(
    capsys: pytest.CaptureFixture[str], case: str
) -> None:
    command, overrides, message = REFUSED[case]
    assert run(command, *overrides) == 2
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said
    assert not Path("out").exists()
