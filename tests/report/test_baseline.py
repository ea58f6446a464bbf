"""A run beside its baseline, from what both left on the disk."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from reasontrain.report import write_report
from reasontrain.report.baseline import BaselineComparison, compare
from reasontrain.report.run import read_run

SUITE = "arithmetic-test"


@pytest.fixture
def run_dir(run_dir: Path, tmp_path: Path) -> Path:
    """A run that names `plain` as its baseline, and has right answers to 60 of 100 problems."""
    run = tmp_path / "out" / "ours"
    shutil.copytree(run_dir, run)
    (run / "recipe.yaml").write_text("name: ours\nbaseline: plain\n")
    answer(run, right=range(60))
    return run


def answer(run: Path, right: range, total: int = 100) -> None:
    """Answers after the last evaluated step."""
    step = read_run(run).evaluations[-1].step
    (run / "answers").mkdir(exist_ok=True)
    lines = [json.dumps({"problem": f"p{i}", "correct": i in right}) for i in range(total)]
    (run / "answers" / f"{SUITE}-step-{step}.jsonl").write_text(
        "".join(f"{line}\n" for line in lines)
    )


def plain(run_dir: Path, right: range, total: int = 100) -> Path:
    """The baseline, which lies beside it."""
    other = run_dir.parent / "plain"
    shutil.copytree(run_dir, other)
    (other / "recipe.yaml").write_text("name: plain\n")
    lines = [json.loads(line) for line in (other / "metrics.jsonl").read_text().splitlines()]
    (other / "metrics.jsonl").write_text(
        "".join(json.dumps(row | {"trained_tokens": 10}) + "\n" for row in lines)
    )
    answer(other, right, total)
    return other


def found(run_dir: Path) -> BaselineComparison:
    compared = compare(read_run(run_dir), run_dir)
    assert compared is not None
    return compared


def test_the_difference_is_paired_over_problems(run_dir: Path) -> None:
    """60 right against 50 of the same: 10 problems differ, all one way, so that the interval is far
    from zero.
    """
    plain(run_dir, right=range(50))
    (score,) = [score for score in found(run_dir).scores if score.suite == SUITE]
    assert score.difference.value == pytest.approx(0.1)
    assert 0.03 < score.difference.low < score.difference.high < 0.17
    steps, trained, seconds = found(run_dir).costs
    assert (steps.baseline, steps.run) == (len(read_run(run_dir).steps),) * 2
    assert (trained.baseline, trained.run) == (10 * steps.baseline, 0)
    assert seconds.baseline == seconds.run > 0


def test_all_samples_of_a_problem_count(run_dir: Path) -> None:
    plain(run_dir, right=range(50))
    step = read_run(run_dir).evaluations[-1].step
    with (run_dir / "answers" / f"{SUITE}-step-{step}.jsonl").open("a") as stream:
        # a second sample of each: 30 of the first 60 are right in one of two
        stream.writelines(
            json.dumps({"problem": f"p{i}", "correct": i < 30}) + "\n" for i in range(100)
        )
    (score,) = [score for score in found(run_dir).scores if score.suite == SUITE]
    assert score.difference.value == pytest.approx(0.45 - 0.5)


def test_other_problems_are_not_compared(run_dir: Path) -> None:
    plain(run_dir, right=range(50), total=99)
    assert found(run_dir).scores == ()
    assert (
        found(run_dir).missing
        == "plain was not evaluated on the same problems, and in the same way, after its last step."
    )


def test_answers_with_an_environment_are_not_compared_with_those_without(run_dir: Path) -> None:
    other = plain(run_dir, right=range(50))
    for run, environment in ((run_dir, {"kind": "calculator"}), (other, None)):
        recipe = {"name": run.name, "baseline": "plain"}
        suite = {"name": SUITE, "sampling": {"environment": environment}}
        (run / "recipe.yaml").write_text(json.dumps(recipe | {"evaluate": {"suites": [suite]}}))
    assert found(run_dir).scores == ()


def test_a_baseline_that_is_not_there_is_named_and_none_is_none(run_dir: Path) -> None:
    assert found(run_dir).missing == "The folder of this run has no run plain yet."
    (run_dir / "recipe.yaml").write_text("name: ours\n")
    assert compare(read_run(run_dir), run_dir) is None


def test_the_page_and_the_numbers_have_it(run_dir: Path) -> None:
    plain(run_dir, right=range(50))
    page, numbers = (path.read_text(encoding="utf-8") for path in write_report(run_dir))
    assert '<h2 id="baseline">Compared with plain</h2>' in page
    assert "+10.0" in page
    assert json.loads(numbers)["baseline"]["scores"][0]["difference"]["value"] == pytest.approx(0.1)
    write_report(run_dir.parent / "plain")
    assert 'id="baseline"' not in (run_dir.parent / "plain" / "report.html").read_text(
        encoding="utf-8"
    )
