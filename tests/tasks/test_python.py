"""A reward of one's own: loaded from a path, asked with the problem and the response, wrong in
words.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reasontrain.recipe import as_mapping
from reasontrain.tasks import Response, Scored, Verdict
from reasontrain.tasks.grading import Grader
from reasontrain.tasks.python import PythonTask
from reasontrain.types import Problem, RunError, UserError

CODE = """
LIMIT = 3
def score(problem, response):
    right = problem["answer"] in response and problem["level"] == 1
    return min(len(response) / LIMIT, 1.0) if right else 0
def wrong(problem, response): return "a lot"
def infinite(problem, response): return float("inf")
def listed(problem, response):
    import torch
    return torch.tensor([1.0, 2.0])
def huge(problem, response): return 10 ** 400
def broken(problem, response): return problem["nothing"]
"""


def task(folder: Path, function: str = "score", code: str = CODE) -> PythonTask:
    (folder / "my_reward.py").write_text(code)
    (folder / "rows.jsonl").write_text(
        json.dumps({"id": "p", "problem": "2+2?", "answer": "4", "level": 1})
    )
    return PythonTask(
        path=str(folder / "my_reward.py"),
        problems_path=str(folder / "rows.jsonl"),
        function=function,
    )


def test_rewards_are_what_the_function_says(tmp_path: Path) -> None:
    mine = task(tmp_path)
    (problem,) = mine.problems()
    with Grader(num_workers=1) as grader:
        scored = mine.grade(
            [Response(problem=problem, text=text) for text in ("4!", "4!!", "5")], grader
        )
    assert scored == [
        Scored(2 / 3, Verdict(False, "", "own reward")),
        Scored(1.0, Verdict(True, "", "own reward")),
        Scored(0.0, Verdict(False, "", "own reward")),
    ]


@pytest.mark.parametrize(
    ("function", "code", "message"),
    [
        (
            "wrong",
            CODE,
            "function 'wrong', problem 'p': returned 'a lot'; expected a finite number",
        ),
        ("infinite", CODE, "returned inf; expected a finite number"),
        ("broken", CODE, "function 'broken', problem 'p': KeyError: 'nothing'"),
        ("listed", CODE, r"returned tensor\(\[1., 2.\]\); expected a finite number"),
        ("huge", CODE, "returned 1000.*; expected a finite number"),
    ],
)
def test_a_function_that_fails_while_it_scores_ends_the_run(
    tmp_path: Path, function: str, code: str, message: str
) -> None:
    mine = task(tmp_path, function, code)
    with pytest.raises(RunError, match=message):
        mine.reward(mine.problems()[0], "4")


@pytest.mark.parametrize(
    ("function", "code", "message"),
    [
        (
            "scored",
            CODE,
            r"my_reward\.py defines no function 'scored' \(it defines: broken, huge, "
            r"infinite, listed, score, wrong\)",
        ),
        ("score", "def score(:", r"my_reward\.py cannot be loaded: SyntaxError"),
        ("score", "import nothing_of_this_name", r"cannot be loaded: ModuleNotFoundError"),
    ],
)
def test_a_function_that_cannot_be_had_is_said(
    tmp_path: Path, function: str, code: str, message: str
) -> None:
    mine = task(tmp_path, function, code)
    with pytest.raises(UserError, match=message):
        mine.reward(mine.problems()[0], "4")


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.py is not a Python file"):
        PythonTask(path=str(tmp_path / "none.py"), problems_path="x").load()


ROW = {
    "prompt": "2+2?",
    "tests": [1, {"a": None}],
    "weight": 0.5,
    "more": {"b": True},
    "none": None,
}
ECHO = """
SEEN = []
def score(problem, response):
    SEEN.append({**problem, "tests": list(problem["tests"])})
    problem["tests"].clear()
    return 1
"""


def test_the_function_gets_the_columns_as_they_are_in_the_file(tmp_path: Path) -> None:
    mine = task(tmp_path, code=ECHO)
    Path(mine.problems_path).write_text(json.dumps(ROW))
    (problem,) = mine.problems()
    mine.reward(problem, "4")
    mine.reward(problem, "4")  # and what it changes is its own
    assert (
        mine.load().__globals__["SEEN"]
        == [{**ROW, "id": "0", "prompt": "2+2?", "answer": "", "solution": ""}] * 2
    )


def test_a_problem_that_is_not_in_the_file_has_what_is_known_about_it(tmp_path: Path) -> None:
    mine = task(tmp_path, "broken", 'def broken(problem, response): return problem["level"] == "7"')
    assert mine.reward(Problem(id="other", prompt="?", about={"level": "7"}), "4") == 1.0


@pytest.mark.parametrize(
    "code",
    [
        "True",
        "1",
        "Fraction(1)",
        "Decimal(1)",
        "numpy.float32(1)",
        "numpy.bool_(True)",
        "numpy.array(1)",
        "torch.tensor(1)",
    ],
)
def test_whatever_is_a_number_is_a_reward(tmp_path: Path, code: str) -> None:
    imports = "import numpy, torch\nfrom decimal import Decimal\nfrom fractions import Fraction\n"
    mine = task(tmp_path, code=f"{imports}def score(problem, response): return {code}")
    reward = mine.reward(mine.problems()[0], "4")
    assert (reward, type(reward)) == (1.0, float)


def test_the_rows_are_no_setting(tmp_path: Path) -> None:
    mine = task(tmp_path)
    mine.problems()
    assert mine == task(tmp_path)
    assert as_mapping(mine) == as_mapping(task(tmp_path))
