"""Reading a run directory: whole, in part, torn, wrong."""

from __future__ import annotations

import math

import pytest

from reasontrain.metrics.accuracy import Interval
from reasontrain.report.run import read_run
from reasontrain.types import UserError


def test_everything_is_read(run_dir):
    run = read_run(run_dir)
    assert run.name == "tiny-tip"
    assert [row["step"] for row in run.steps] == list(range(1, 61))
    assert [(e.suite, e.step) for e in run.evaluations] == [
        ("arithmetic-test", 0),
        ("arithmetic-test", 30),
        ("arithmetic-test", 60),
        ("gsm8k", 60),
    ]
    assert run.evaluations[2].metrics["accuracy"] == Interval(0.445, 0.445 - 0.03, 0.445 + 0.03)
    assert run.evaluations[2].numbers == {"response_tokens_mean": 67.2, "truncated_share": 0.01}
    assert run.environment["versions.torch"] == "2.13.0"
    assert list(run.token_files) == [1, 60]


def test_a_step_that_was_run_again_counts_once(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(
        '{"step": 2, "loss": 5}\n{"step": 1, "loss": 1}\n{"step": 2, "loss": 7}\n'
    )
    assert read_run(tmp_path).series("loss") == [(1, 1), (2, 7)]


def test_a_torn_last_line_is_left_out_and_noted(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(
        '{"step": 1, "loss": NaN, "grad_norm": "-inf", "word": "x"}\n{"step": 2, "lo'
    )
    run = read_run(tmp_path)
    assert len(run.steps) == 1
    assert math.isnan(run.steps[0]["loss"])
    assert run.steps[0]["grad_norm"] == -math.inf
    assert "word" not in run.steps[0]
    assert run.notes == (
        "The last line of metrics.jsonl was cut short and is left out (metrics.jsonl:2).",
    )


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        (
            "metrics.jsonl",
            '{"step": 1}\nnot json\n{"step": 2}\n',
            "metrics.jsonl:2: expected one JSON object per line",
        ),
        ("metrics.jsonl", "[1]\n", "metrics.jsonl:1: expected a JSON object, found list"),
        ("metrics.jsonl", '{"loss": 1}\n', 'metrics.jsonl:1: expected a number "step", found None'),
        ("evaluations.jsonl", '{"step": 0}\n', 'expected "suite" and "metrics"'),
        (
            "evaluations.jsonl",
            '{"step": 0, "suite": "s", "num_problems": 1, "num_samples": 1, "temperature": 0,'
            ' "metrics": {"accuracy": {"value": 1}}}\n',
            'evaluations.jsonl:1, accuracy: expected a number "low", found None',
        ),
        ("environment.json", "{", "environment.json: expected JSON"),
    ],
)
def test_what_makes_no_sense_is_named_with_its_place(tmp_path, file, text, message):
    (tmp_path / file).write_text(text)
    with pytest.raises(UserError) as error:
        read_run(tmp_path)
    assert message in str(error.value)


def test_no_run(tmp_path):
    with pytest.raises(UserError, match="holds no run"):
        read_run(tmp_path)
    with pytest.raises(UserError, match="no run directory"):
        read_run(tmp_path / "absent")


def test_an_unreadable_recipe_still_names_the_run_after_its_folder(tmp_path):
    (tmp_path / "recipe.yaml").write_text("a: [")
    assert read_run(tmp_path).name == tmp_path.name


def test_evaluations_come_in_order_of_their_steps_and_the_last_time_counts(tmp_path):
    line = (
        '{{"step": {}, "suite": "s", "num_problems": 1, "num_samples": 1, "temperature": 0, '
        '"metrics": {{}}, "x": {}}}\n'
    )
    (tmp_path / "evaluations.jsonl").write_text(
        line.format(9, 1) + line.format(0, 2) + line.format(9, 3)
    )
    assert [(e.step, e.numbers["x"]) for e in read_run(tmp_path).evaluations] == [(0, 2), (9, 3)]
