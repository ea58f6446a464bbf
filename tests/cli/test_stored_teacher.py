"""`reasontrain score` stores a teacher's log-probs, and training reads them in place of weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from reasontrain.cli import main
from reasontrain.models import testbed

RECIPE = """
name: run
steps: 3
model: {path: student}
teacher: {kind: stored, model: {path: teacher}, store: scores, top_k: null}
task: {kind: arithmetic, num_problems: 24}
token_selection: {kind: tip, keep_ratio: 0.5}
objective: {kind: distill}
loss_aggregation: seq_mean_token_mean
learn: {lr: 1.0e-2, rollouts_per_step: 8, micro_batch_tokens: 300}
track: {tensorboard: false}
"""
WEIGHTS = ("name=weights", "teacher={path: teacher}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student and two teachers with random weights."""
    where = tmp_path_factory.mktemp("models")
    for name, hidden_size, seed in (("student", 32, 1), ("teacher", 48, 2), ("other", 48, 3)):
        shape = testbed.TinyShape(
            hidden_size=hidden_size,
            intermediate_size=48,
            num_layers=1,
            num_heads=2,
            num_key_value_heads=1,
            head_dim=16,
            seed=seed,
        )
        testbed.build(where / name, shape)
    return where


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for model in folder.iterdir():
        Path(model.name).symlink_to(model)
    Path("recipe.yaml").write_text(RECIPE)


def run(command: str, *overrides: str) -> int:
    return main([command, "recipe.yaml", *overrides])


def numbers(name: str, key: str) -> Sequence[float]:
    lines = Path(f"out/{name}/metrics.jsonl").read_text().splitlines()
    return [json.loads(line)[key] for line in lines]


def test_all_ids_train_as_the_weights_do_and_few_nearly(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("score") == 0
    assert "teacher scores 24 of 24 responses" in capsys.readouterr().out
    assert run("score") == 0
    assert "teacher scores 0 of 24 responses" in capsys.readouterr().out
    assert run("score", "task.num_problems=26") == 0  # two responses more
    assert "teacher scores 2 of 26 responses" in capsys.readouterr().out
    assert len(list(Path("scores").glob("part-*.parquet"))) == 2
    assert run("train") == 0
    assert run("train", *WEIGHTS) == 0
    for key in ("loss", "divergence", "kl_reverse_mean", "entropy_mean", "kept_share", "grad_norm"):
        assert numbers("run", key) == pytest.approx(numbers("weights", key), rel=1e-4)
    few = ("teacher.store=few", "teacher.top_k=4", "name=few")
    assert run("score", *few) == 0
    assert run("train", *few) == 0
    assert 0 < numbers("few", "kl_reverse_mean")[0] < numbers("run", "kl_reverse_mean")[0]


HINTED = "teacher.prompt={template: '{problem}\\n{answer}\\n'}"


def test_a_teacher_sees_the_answer_stored_as_with_weights() -> None:
    hinted = ("teacher.store=hinted", HINTED, "name=hinted", "steps=1")
    assert run("score", *hinted) == 0
    assert run("train", *hinted) == 0
    assert run("train", *WEIGHTS, HINTED, "steps=1") == 0
    for key in ("loss", "kl_reverse_mean", "grad_norm"):
        assert numbers("hinted", key) == pytest.approx(numbers("weights", key), rel=1e-4), key
    # On policy, with the student's own start weights as the teacher: the prompt alone differs.
    own = ("model.path=testbed:student", "teacher={path: testbed:student}", HINTED, "name=own")
    sampled = ("sample={max_tokens: 12}", "task.num_problems=8", "steps=1")
    assert run("train", *own, *sampled) == 0
    assert numbers("own", "kl_reverse_mean")[0] > 0.01


BY_FORM = "teacher={{kind: by_column, column: form, teachers: [{}]}}"
STORY = "{path: teacher, value: story}"


def test_a_column_of_the_data_chooses_the_teacher(capsys: pytest.CaptureFixture[str]) -> None:
    short = ("steps=1", "task.num_problems=8")
    assert run("train", *short, *WEIGHTS) == 0
    same = BY_FORM.format(f"{STORY}, {{path: teacher, value: expression}}")
    assert run("train", *short, "name=same", same) == 0
    two = BY_FORM.format(f"{STORY}, {{path: other, value: expression}}")
    assert run("train", *short, "name=two", two) == 0
    mixed = "teacher={kind: mixed, teachers: [{path: teacher, weight: 2}, {path: teacher}]}"
    assert run("train", *short, "name=mixed", mixed) == 0
    for key in ("loss", "kl_reverse_mean", "grad_norm"):
        for name in ("same", "mixed"):
            assert numbers(name, key) == pytest.approx(numbers("weights", key), rel=1e-4)
    assert numbers("two", "grad_norm") != pytest.approx(numbers("weights", "grad_norm"), rel=0.05)
    capsys.readouterr()
    assert run("train", *short, "name=none", BY_FORM.format(STORY)) == 2
    error = capsys.readouterr().err
    assert "has 'expression' in the column `form`, and teacher.teachers has no teacher of" in error
    assert len(error.strip().splitlines()) == 1
    assert run("train", *short, "name=none", same.replace("form", "domain")) == 2
    assert "has no `domain`, the column of teacher.column; it has: " in capsys.readouterr().err
    assert not Path("out/none").exists()


REFUSED = {
    "not scored": ((), "holds no log-probs for the token ids of 8 of 24 responses, the first"),
    "another teacher": (("teacher.model.path=other",), "is stale: "),
    "another number of ids": (("teacher.top_k=2",), "(different: top_k)"),
    "another precision": (("teacher.model.dtype=bfloat16",), "(different: model)"),
    "nothing there": (("teacher.store=nowhere",), "nowhere holds no log-probs for the token ids"),
    "no teacher": (("teacher.model.path=nothing",), "the model nothing cannot be loaded"),
}


def test_what_the_store_does_not_hold_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("score", "task.num_problems=16") == 0
    for case, (overrides, message) in REFUSED.items():
        capsys.readouterr()
        assert run("train", *overrides) == 2, case
        error = capsys.readouterr().err
        assert message in error, case
        assert len(error.strip().splitlines()) == 1, error
        assert not Path("out").exists(), case
