"""What every task states: problems, grading and a held-out split."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from reasontrain.tasks import Arithmetic, Gsm8k, ImageTask, PythonTask, Response, Task, TaskSettings
from reasontrain.tasks.grading import Grader
from reasontrain.types import Problem, UserError


def test_every_task_is_a_task() -> None:
    assert all(issubclass(task, Task) for task in get_args(TaskSettings))


@pytest.mark.parametrize(
    "task", [Arithmetic(num_problems=50, wrong_steps=0.5), ImageTask(num_problems=50)]
)
def test_a_held_out_split_shares_no_problem_and_has_right_solutions(
    task: Arithmetic | ImageTask,
) -> None:
    held_out = task.held_out()
    assert (held_out.kind, held_out.split, len(held_out.problems())) == (task.kind, "test", 50)
    trained = {(p.prompt, p.image) for p in task.problems()}
    assert trained.isdisjoint((p.prompt, p.image) for p in held_out.problems())
    assert all(p.answer in p.solution.splitlines()[-1] for p in held_out.problems())


def test_other_tasks_have_no_held_out_split() -> None:
    assert Gsm8k(path="x.jsonl").held_out() is None


def test_captions_are_right_word_by_word() -> None:
    task = ImageTask(num_problems=1)
    (problem,) = task.problems()
    with Grader(num_workers=1) as grader:
        task.check_gradable([problem], grader, required=True)
        graded = task.grade(
            [
                Response(problem=problem, text=f"  {problem.answer} "),
                Response(problem=problem, text=problem.answer.upper()),
            ],
            grader,
        )
    assert [(g.reward, g.verdict.correct) for g in graded] == [(1.0, True), (0.0, False)]


def test_a_task_without_gold_answers_cannot_be_graded() -> None:
    task, problem = Gsm8k(path="x.jsonl"), Problem(id="a", prompt="?")
    with Grader(num_workers=1) as grader:
        task.check_gradable([problem], grader, required=False)
        with pytest.raises(UserError, match="problem a has no gold answer, which grading needs"):
            task.check_gradable([problem], grader, required=True)


def test_a_reward_function_that_does_not_load_is_found_before_the_run(tmp_path: Path) -> None:
    task = PythonTask(path=str(tmp_path / "none.py"), problems_path="x.jsonl")
    assert task.has_own_reward
    with (
        Grader(num_workers=1) as grader,
        pytest.raises(UserError, match=r"none\.py is not a Python file"),
    ):
        task.check_gradable([], grader, required=False)
