"""Runs set beside each other, by hand-made answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from reasontrain.evaluation.compare import compare, markdown
from reasontrain.types import UserError


def run(
    where: Path,
    name: str,
    rule: str,
    seed: int,
    before: list[bool],
    after: list[bool],
    first: str = "p",
) -> Path:
    (where / name / "answers").mkdir(parents=True)
    (where / name / "recipe.yaml").write_text(
        yaml.safe_dump(
            {"name": name, "seed": seed, "steps": 10, "token_selection": {"kind": rule}, "out": "x"}
        )
    )
    for step, verdicts in (
        (0, before),
        (9, [not v for v in after]),
        (10, after),
    ):  # 10 is the last, though "9" sorts after it
        answers = [{"problem": f"{first}{i}", "correct": v} for i, v in enumerate(verdicts)]
        (where / name / "answers" / f"held-step-{step}.jsonl").write_text(
            "".join(json.dumps(a) + "\n" for a in answers)
        )
    return where / name


def test_runs_of_one_recipe_make_one_arm(tmp_path: Path) -> None:
    runs = [
        run(tmp_path, "tip-0", "tip", 0, [True, False, False, False], [True, True, True, False]),
        run(tmp_path, "tip-1", "tip", 1, [True, False, False, False], [True, True, False, False]),
        run(tmp_path, "all-0", "all", 0, [True, False, False, False], [True, True, True, True]),
    ]
    best, second = compare(runs, "held")
    assert (best.name, best.num_seeds, best.before, best.after, best.gain.value) == (
        "all-0",
        1,
        0.25,
        1.0,
        0.75,
    )
    assert (second.name, second.num_seeds, second.num_problems) == ("tip", 2, 4)
    assert second.gain.value == pytest.approx((0.5 + 0.25) / 2)
    assert second.gain.low <= second.gain.value <= second.gain.high
    assert markdown([second]).splitlines()[2].startswith("| tip | 2 | 25.0 | 62.5 | +37.5 [")


def test_runs_evaluated_on_other_data_are_not_compared(tmp_path: Path) -> None:
    runs = [run(tmp_path, name, name, 0, [True], [True]) for name in ("a", "b")]
    for key, values in (
        ("problems_sha256", ("12", "34")),
        ("temperature", (0.0, 1.0)),
        ("version", (1, 2)),
    ):
        for folder, value in zip(runs, values, strict=True):
            record = {"suite": "held", "step": 10, key: value}
            (folder / "evaluations.jsonl").write_text(json.dumps(record) + "\n")
        with pytest.raises(UserError, match=rf"{values[0]!r} for .*a and {values[1]!r} for .*b"):
            compare(runs, "held")


def test_all_samples_count(tmp_path: Path) -> None:
    folder = run(tmp_path, "a", "tip", 0, [False], [False])
    answers = folder / "answers" / "held-step-10.jsonl"
    answers.write_text(answers.read_text() + json.dumps({"problem": "p0", "correct": True}) + "\n")
    (arm,) = compare([folder], "held")
    assert (arm.before, arm.after, arm.gain.value) == (0.0, 0.5, 0.5)


def test_other_problems_are_not_compared(tmp_path: Path) -> None:
    runs = [
        run(tmp_path, "a", "tip", 0, [True], [True]),
        run(tmp_path, "b", "tip", 1, [True], [True], first="q"),
    ]
    with pytest.raises(UserError, match="evaluated on different problems of suite 'held'"):
        compare(runs, "held")


def test_a_run_that_was_not_finished_is_named(tmp_path: Path) -> None:
    unfinished = run(tmp_path, "a", "tip", 0, [True], [True])
    with pytest.raises(
        UserError,
        match="was not evaluated on suite 'other' both before training and after its 10 steps",
    ):
        compare([unfinished], "other")
    with pytest.raises(UserError, match="is listed twice"):
        compare([unfinished, unfinished], "held")


def test_a_response_may_hold_separators_of_lines(tmp_path: Path) -> None:
    one = run(tmp_path, "a", "tip", 0, [True], [True])
    answer = json.dumps(
        {"problem": "p0", "correct": True, "response": "a\u2028b\x85c"}, ensure_ascii=False
    )
    (one / "answers" / "held-step-10.jsonl").write_text(answer + "\n")
    assert compare([one], "held")[0].after == 1.0
