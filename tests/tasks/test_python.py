"""A reward of one's own: loaded from a path, called with the problem and the response; whatever it
does, the run goes on or stops as the recipe says.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
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
def undefined(problem, response): return float("nan")
def part(problem, response): return {"reward": 1, "format": float("nan")}
def keyless(problem, response): return {"format": 1}
def listed(problem, response):
    import numpy
    return numpy.array([1.0, 2.0])
def huge(problem, response): return 10 ** 400
def unshown(problem, response): return type("T", (), {"__repr__": lambda self: 1 / 0})()
def broken(problem, response):
    return helper(problem)
def helper(problem):
    return problem["nothing"]
def mixed(problem, response):
    print("asked", response)
    return {"a": 1.0, "b": None, "c": 1 / (response != "c"), "d": 0}[response]
def several(problem, response): return {"reward": len(response), "format": 0.5, "judge": None}
def reads(problem, response, *, truncated, unfinished): return 2 * truncated + unfinished
"""


@pytest.fixture(scope="module")
def grader() -> Iterator[Grader]:
    with Grader(num_workers=1) as grader:
        yield grader


def task(folder: Path, function: str = "score", code: str = CODE, **settings: str) -> PythonTask:
    (folder / "my_reward.py").write_text(code)
    (folder / "rows.jsonl").write_text(
        json.dumps({"id": "p", "problem": "2+2?", "answer": "4", "level": 1})
    )
    return PythonTask(
        path=str(folder / "my_reward.py"),
        problems_path=str(folder / "rows.jsonl"),
        function=function,
        workers=1,
        **settings,  # type: ignore[arg-type]
    )


def graded(own: PythonTask, grader: Grader, *texts: str) -> list[Scored]:
    (problem,) = own.problems()
    return own.grade([Response(problem=problem, text=text) for text in texts], grader)


def test_rewards_are_what_the_function_returns(tmp_path: Path, grader: Grader) -> None:
    assert graded(task(tmp_path), grader, "4!", "4!!", "5") == [
        Scored(2 / 3, Verdict(False, "", "own reward")),
        Scored(1.0, Verdict(True, "", "own reward")),
        Scored(0.0, Verdict(False, "", "own reward")),
    ]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("wrong", r"function 'wrong': returned 'a lot'; expected a finite number.*problem 'p'"),
        ("infinite", "returned inf; expected a finite number"),
        ("undefined", "returned nan; expected a finite number"),
        ("part", "returned {'reward': 1, 'format': nan}; expected"),
        ("keyless", "returned {'format': 1}; expected .* a dict of those with the key 'reward'"),
        ("listed", r"returned array\(\[1., 2.\]\); expected a finite number"),
        ("huge", "returned 1000.*; expected a finite number"),
        ("unshown", "returned ; expected a finite number"),
    ],
)
def test_a_failure_stops_the_run_and_names_the_line_and_the_problem(
    tmp_path: Path, grader: Grader, function: str, message: str
) -> None:
    with pytest.raises(RunError, match=message):
        graded(task(tmp_path, function), grader, "4")


def test_an_exception_is_reported_with_the_frames_of_the_users_code(
    tmp_path: Path, grader: Grader
) -> None:
    own = task(tmp_path, "broken")
    with pytest.raises(RunError) as raised:
        graded(own, grader, "4")
    first, *frames, last = str(raised.value).splitlines()
    assert first == f"{own.path}, line 19, in helper: KeyError: 'nothing' (problem 'p')"
    places = [frame for frame in frames if frame.startswith("  File")]
    assert places == [
        f'  File "{own.path}", line 17, in broken',
        f'  File "{own.path}", line 19, in helper',
    ]
    assert "    return helper(problem)" in frames
    assert last.startswith("`task.on_error: drop` leaves such rollouts out")


@pytest.mark.parametrize(("on_error", "reward"), [("drop", None), ("zero", 0.0)])
def test_a_failure_leaves_out_its_response_or_makes_it_zero(
    tmp_path: Path,
    grader: Grader,
    caplog: pytest.LogCaptureFixture,
    on_error: str,
    reward: float | None,
) -> None:
    """A reward of None is none in both cases, and no failure."""
    caplog.set_level(logging.DEBUG, "reasontrain")
    scored = graded(task(tmp_path, "mixed", on_error=on_error), grader, "a", "b", "c", "c", "d")
    assert [s.reward for s in scored] == [1.0, None, reward, reward, 0.0]
    assert [s.failure for s in scored] == [None, None, "error", "error", None]
    assert [s.verdict.reason for s in scored] == [
        "own reward",
        "no reward",
        "error",
        "error",
        "own reward",
    ]
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 1, "one line for failures of one kind"
    assert "line 22, in mixed: ZeroDivisionError" in warnings[0]
    output = [r.getMessage() for r in caplog.records if r.name.endswith("output")]
    assert [text for text in output if "asked b" in text] == ["problem 'p' printed:\nasked b"]
    assert sum("ZeroDivisionError" in text and "Traceback" not in text for text in output) == 2


def test_named_numbers_are_kept_beside_the_reward(tmp_path: Path, grader: Grader) -> None:
    (scored,) = graded(task(tmp_path, "several"), grader, "4")
    assert (scored.reward, scored.metrics) == (1.0, {"format": 0.5})


def test_a_function_may_ask_how_the_response_ended(tmp_path: Path, grader: Grader) -> None:
    own = task(tmp_path, "reads")
    (problem,) = own.problems()
    responses = [
        Response(problem=problem, text="", truncated=cut, unfinished=open_thought)
        for cut, open_thought in ((False, False), (False, True), (True, False))
    ]
    assert [s.reward for s in own.grade(responses, grader)] == [0, 1, 2]


@pytest.mark.parametrize(
    ("function", "code", "message"),
    [
        (
            "scored",
            "import json\ndef score(p, r): ...\ndef other(p, r): ...\n_x = len",
            r"my_reward\.py defines no function 'scored' \(it defines: other, score\)",
        ),
        ("score", "\ndef score(:", r"my_reward\.py, line 2: .*cannot be loaded: SyntaxError"),
        ("score", "import nothing_of_this_name", "line 1: .*cannot be loaded: ModuleNotFoundE"),
        ("score", "import sys\nsys.exit(3)", "line 2: .*cannot be loaded: SystemExit: 3"),
        (
            "score",
            "import os\nprint('why')\nos._exit(3)",
            r"cannot be loaded: the process ended itself with exit code 3; it printed:\nwhy",
        ),
    ],
)
def test_a_function_that_cannot_be_loaded_is_reported_before_the_run(
    tmp_path: Path, grader: Grader, function: str, code: str, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        task(tmp_path, function, code).check_gradable([], grader, required=True)


def test_a_missing_file_is_reported(tmp_path: Path, grader: Grader) -> None:
    own = PythonTask(path=str(tmp_path / "none.py"), problems_path="x")
    with pytest.raises(UserError, match=r"none\.py is not a Python file that can be read"):
        own.check_gradable([], grader, required=True)


ROW = {
    "prompt": "2+2?",
    "tests": [1, {"a": None}],
    "weight": 0.5,
    "more": {"b": True},
    "none": None,
}
SEEN = {**ROW, "id": "0", "prompt": "2+2?", "answer": "", "solution": ""}


def test_the_function_gets_the_columns_as_they_are_in_the_file(
    tmp_path: Path, grader: Grader
) -> None:
    code = f"def score(problem, response): return problem == {SEEN} and problem.clear() is None"
    own = task(tmp_path, code=code)
    Path(own.problems_path).write_text(json.dumps(ROW))
    # and what it changes is its own
    assert [s.reward for s in graded(own, grader, "4", "4")] == [1.0, 1.0]


def test_a_problem_that_is_not_in_the_file_has_what_is_known_about_it(
    tmp_path: Path, grader: Grader
) -> None:
    own = task(tmp_path, code='def score(problem, response): return problem["level"] == "7"')
    other = Problem(id="other", prompt="?", about={"level": "7"})
    assert own.grade([Response(problem=other, text="4")], grader)[0].reward == 1.0


def test_whatever_is_a_number_is_a_reward(tmp_path: Path, grader: Grader) -> None:
    values = "True, 1, Fraction(1), Decimal(1), numpy.float32(1), numpy.bool_(True), numpy.array(1)"
    code = (
        "import numpy\nfrom decimal import Decimal\nfrom fractions import Fraction\n"
        f"def score(problem, response): return [{values}][int(response)]"
    )
    own = task(tmp_path, code=code)
    rewards = [s.reward for s in graded(own, grader, *map(str, range(7)))]
    assert [(reward, type(reward)) for reward in rewards] == [(1.0, float)] * 7


def test_all_workers_run_the_file_as_it_was(tmp_path: Path, grader: Grader) -> None:
    own = task(tmp_path, code="def score(problem, response): return 1")
    own.check_gradable([], grader, required=True)
    grader.close()
    Path(own.path).write_text("def score(problem, response): return 2")
    assert graded(own, grader, "4")[0].reward == 1


def files(folder: Path, sources: dict[str, str]) -> Sequence[str]:
    for name, code in sources.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(code)
    own = PythonTask(path=str(folder / "r.py"), problems_path=str(folder / "p.jsonl"))
    return [str(path.relative_to(folder)) for path in own.files()]


def test_files_are_those_that_rewards_depend_on(tmp_path: Path) -> None:
    """Modules beside the file, directly or through others; not installed ones, nor others there."""
    sources = {
        "r.py": "import json, near\ndef score(p, r):\n    from pack.inner import f",
        "near.py": "import near, third",
        "third.py": "",
        "unused.py": "",
        "pack/__init__.py": "",
        "pack/inner.py": "import pack",
    }
    assert set(files(tmp_path, sources)) == {"p.jsonl", *sources} - {"unused.py"}
    assert files(tmp_path, {"r.py": "def score(:"}) == ["p.jsonl", "r.py"]


def test_a_module_beside_the_file_is_imported_but_hides_none_of_python(
    tmp_path: Path, grader: Grader
) -> None:
    (tmp_path / "beside.py").write_text("VALUE = 0.5")
    (tmp_path / "fractions.py").write_text("1 / 0")
    code = "import beside, fractions\ndef score(problem, response): return beside.VALUE"
    assert graded(task(tmp_path, code=code), grader, "4")[0].reward == 0.5


def test_what_was_read_and_warned_of_is_no_setting(tmp_path: Path, grader: Grader) -> None:
    own = task(tmp_path, "broken", on_error="drop")
    graded(own, grader, "4")
    assert own == task(tmp_path, "broken", on_error="drop")
    assert as_mapping(own) == as_mapping(task(tmp_path, "broken", on_error="drop"))
