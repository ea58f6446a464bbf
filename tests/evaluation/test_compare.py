"""Runs set beside each other, by hand-made answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from reasontrain.cli import main
from reasontrain.evaluation.compare import compare
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
    found = compare(runs, "held")
    assert (found.suite, found.num_problems, found.baseline) == ("held", 4, "tip")
    best, second = found.arms
    assert (best.name, best.num_seeds, best.before, best.after, best.gain.value) == (
        "all-0",
        1,
        0.25,
        1.0,
        0.75,
    )
    assert (second.name, second.num_seeds) == ("tip", 2)
    assert second.gain.value == pytest.approx((0.5 + 0.25) / 2)
    assert second.gain.low <= second.gain.value <= second.gain.high
    assert second.difference is None, "the first run is of the baseline"
    assert best.difference is not None
    assert best.difference.value == pytest.approx(1.0 - (0.75 + 0.5) / 2)
    assert best.difference.low <= best.difference.value <= best.difference.high
    # the baseline is the first that is listed; nothing else changes
    swapped = compare([runs[2], *runs[:2]], "held")
    assert swapped.baseline == "all-0"
    assert [(arm.name, arm.gain) for arm in swapped.arms] == [
        (arm.name, arm.gain) for arm in found.arms
    ]


def test_runs_that_were_answered_in_another_way_are_refused(tmp_path: Path) -> None:
    """Sections that older recipes do not state are null; workers change no answer."""
    calculator = {"kind": "calculator", "max_turns": 4}
    samplings: dict[str, dict[str, object]] = {
        "old": {"max_tokens": 9},
        "plain": {"max_tokens": 9, "environment": None},
        "calculator": {"max_tokens": 9, "environment": calculator},
        "workers": {"max_tokens": 9, "environment": calculator | {"workers": 2}},
        "turns": {"max_tokens": 9, "environment": calculator | {"max_turns": 2}},
        "thought": {"max_tokens": 9, "thought": {"max_tokens": 4}},
        "longer": {"max_tokens": 90},
    }
    runs = {name: run(tmp_path, name, "a", 0, [True], [True]) for name in samplings}
    for name, sampling in samplings.items():
        recipe = runs[name] / "recipe.yaml"
        evaluate = {"suites": [{"name": "held", "sampling": sampling}]}
        content = yaml.safe_load(recipe.read_text()) | {"evaluate": evaluate}
        recipe.write_text(yaml.safe_dump(content))

    def refusal(*names: str) -> str:
        try:
            compare([runs[name] for name in names], "held")
        except UserError as error:
            return str(error)
        return ""

    assert refusal("old", "plain") == refusal("calculator", "workers") == ""
    assert "`sampling.environment` differs between" in refusal("plain", "calculator")
    assert "`sampling.environment` differs" in refusal("old", "calculator")
    assert "`sampling.environment` differs" in refusal("turns", "calculator")
    assert "`sampling.thought` differs" in refusal("plain", "thought")
    assert "`sampling.max_tokens` differs" in refusal("plain", "longer")


def test_a_difference_is_paired_by_problem(tmp_path: Path) -> None:
    """Two arms that are right on nearly the same problems differ by little, and surely."""
    right = [i % 2 == 0 for i in range(200)]
    better = [verdict or i % 20 == 1 for i, verdict in enumerate(right)]  # 10 more of 200
    other = better[1:] + better[:1]  # as many right, on other problems
    runs = [run(tmp_path, "a", "a", 0, right, right), run(tmp_path, "b", "b", 0, right, better)]
    runs.append(run(tmp_path, "c", "c", 0, right, other))
    width = {}
    for arm in compare(runs, "held").arms:
        if arm.difference is not None:
            assert arm.difference.value == pytest.approx(0.05)
            width[arm.name] = arm.difference.high - arm.difference.low
    # Variance of a mean of 200 differences: of 10 ones, 0.05 * 0.95 / 200, so 2 * 1.96 * 0.0154.
    assert width["b"] == pytest.approx(0.0604, rel=0.1)
    assert width["c"] > 3 * width["b"]


def test_the_command_prints_every_suite_of_all_runs_as_tables_or_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [
        run(tmp_path, "a", "a", 0, [False, False], [True, False]),
        run(tmp_path, "b", "b", 0, [False, False], [True, True]),
    ]
    for folder, suites in zip(runs, (["own", "held", "more"], ["more", "held"]), strict=True):
        for step in (0, 10):
            answers = folder / "answers" / f"held-step-{step}.jsonl"
            (folder / "answers" / f"more-step-{step}.jsonl").write_text(answers.read_text())
        (folder / "evaluations.jsonl").write_text(
            "".join(json.dumps({"suite": suite, "step": 0}) + "\n" for suite in suites)
        )
    assert main(["compare", *map(str, runs)]) == 0
    first, second = capsys.readouterr().out.rstrip().split("\n\nSuite ")
    assert first.splitlines()[0] == "Suite held, 2 problems:"
    assert second.splitlines()[0] == "more, 2 problems:"
    assert first.splitlines()[2] == (
        "| arm | seeds | before | after | gain [95 % interval] | difference from a "
        "[95 % interval] |"
    )
    assert first.splitlines()[4].startswith(
        "| b | 1 | 0.0 | 100.0 | +100.0 [+100.0, +100.0] | +50.0 ["
    )
    assert first.splitlines()[5].startswith("| a | 1 | 0.0 | 50.0 | +50.0 [")
    assert first.splitlines()[5].endswith("] |  |")
    assert main(["compare", *map(str, runs), "--suite", "more", "held", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [each["suite"] for each in printed] == ["more", "held"]
    assert printed[1]["baseline"] == "a"
    best, baseline = printed[1]["arms"]
    assert (best["name"], best["after"], best["difference"]["value"]) == ("b", 1.0, 0.5)
    assert baseline["difference"] is None
    (runs[1] / "evaluations.jsonl").unlink()
    assert main(["compare", *map(str, runs)]) == 2
    assert "on no suite in common" in (error := capsys.readouterr().err)
    assert "a: own, held, more; " in error
    assert "b: none" in error


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
    (arm,) = compare([folder], "held").arms
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
    assert compare([one], "held").arms[0].after == 1.0
