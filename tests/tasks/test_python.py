"""A reward of one's own: loaded from a path, asked with the problem and the response, wrong in words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reasontrain.tasks import Scored, Verdict, score
from reasontrain.tasks.grading import Grader
from reasontrain.tasks.python import PythonTask
from reasontrain.types import UserError

CODE = """
LIMIT = 3
def score(problem, response):
    return min(len(response) / LIMIT, 1.0) if problem["answer"] in response and problem["level"] == "1" else 0
def wrong(problem, response): return "a lot"
def infinite(problem, response): return float("inf")
def broken(problem, response): return problem["nothing"]
"""


def task(folder: Path, function: str = "score", code: str = CODE) -> PythonTask:
    (folder / "my_reward.py").write_text(code)
    (folder / "rows.jsonl").write_text(json.dumps({"id": "p", "problem": "2+2?", "answer": "4", "level": 1}))
    return PythonTask(path=str(folder / "my_reward.py"), problems_path=str(folder / "rows.jsonl"), function=function)


def test_rewards_are_what_the_function_says(tmp_path: Path) -> None:
    mine = task(tmp_path)
    (problem,) = mine.problems()
    with Grader(num_workers=1) as grader:
        scored = score(mine, [(problem, "4!"), (problem, "4!!"), (problem, "5")], grader)
    assert scored == [
        Scored(2 / 3, Verdict(False, "", "own reward")),
        Scored(1.0, Verdict(True, "", "own reward")),
        Scored(0.0, Verdict(False, "", "own reward")),
    ]


@pytest.mark.parametrize(
    ("function", "code", "message"),
    [
        ("wrong", CODE, "function 'wrong', problem 'p': returned 'a lot'; expected a finite number"),
        ("infinite", CODE, "returned inf; expected a finite number"),
        ("broken", CODE, "function 'broken', problem 'p': KeyError: 'nothing'"),
        ("scored", CODE, r"my_reward\.py defines no function 'scored' \(it defines: broken, infinite, score, wrong\)"),
        ("score", "def score(:", r"my_reward\.py cannot be loaded: SyntaxError"),
        ("score", "import nothing_of_this_name", r"cannot be loaded: ModuleNotFoundError"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, function: str, code: str, message: str) -> None:
    mine = task(tmp_path, function, code)
    with pytest.raises(UserError, match=message):
        mine.reward(mine.problems()[0], "4")


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.py is no Python file"):
        PythonTask(path=str(tmp_path / "none.py"), problems_path="x").load()
