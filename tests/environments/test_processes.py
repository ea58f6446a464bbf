"""The user's environments: whatever one does, the others go on, and the failure is told."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from reasontrain.data.environment import PythonEnvironment
from reasontrain.environments import EpisodeCall, StepResult
from reasontrain.environments.processes import OwnEnvironments
from reasontrain.types import Problem, UserError

CODE = """
import os, time

class Guess:
    def reset(self, problem, seed):
        self.secret = int(problem["answer"])
        self.turns = 0
        return f"seed {seed}"

    def step(self, text):
        self.turns += 1
        if text == "raise": raise KeyError("no such thing")
        if text == "exit": os._exit(3)
        if text == "sleep": time.sleep(1000)
        if text == "wrong": return "only a text"
        if text == "nan": return "", float("nan"), False
        if int(text) == self.secret: return None, 1 / self.turns, True
        return f"turn {self.turns}: {'more' if int(text) < self.secret else 'less'}", None, False

class Broken:
    def reset(self, problem): return 5
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "guess.py"
    path.write_text(CODE)
    return path


@pytest.fixture
def environments(file: Path) -> Iterator[OwnEnvironments]:
    own = OwnEnvironments(PythonEnvironment(path=str(file), name="Guess", workers=2, timeout_s=5.0))
    own.begin()
    yield own
    own.close()


def call(rollout: int, *turns: str) -> EpisodeCall:
    problem = Problem(id=f"p{rollout}", prompt="?", answer="5")
    return EpisodeCall(rollout=rollout, seed=100 + rollout, problem=problem, turns=turns)


def told(results: Sequence[StepResult]) -> list[tuple[str, float | None, bool]]:
    assert [result.message for result in results] == [""] * len(results)
    return [(result.observation, result.reward, result.done) for result in results]


def test_conversations_keep_their_state_beside_each_other(environments: OwnEnvironments) -> None:
    numbers = range(5)
    assert told(environments.run([call(n) for n in numbers])) == [
        (f"seed {100 + n}", None, False) for n in numbers
    ]
    assert (
        told(environments.run([call(n, "9") for n in numbers]))
        == [("turn 1: less", None, False)] * 5
    )
    assert told(environments.run([call(1, "9", "5"), call(4, "9", "2")])) == [
        ("", 0.5, True),
        ("turn 2: more", None, False),
    ]


def test_a_worker_that_ends_takes_no_other_conversation_with_it(
    environments: OwnEnvironments,
) -> None:
    """Rollouts 0, 2 and 4 share a worker, which dies under 0; 2 and 4 go on in a new one."""
    environments.run([call(n) for n in (0, 2, 4)])
    environments.run([call(n, "9") for n in (0, 2, 4)])
    dead, *others = environments.run([call(0, "9", "exit"), *(call(n, "9", "2") for n in (2, 4))])
    assert dead.failure == "crash"
    assert dead.message.endswith(
        "guess.py, environment 'Guess': the process ended itself with exit code 3"
    )
    assert told(others) == [("turn 2: more", None, False)] * 2


def test_failures_are_told_with_their_line(environments: OwnEnvironments) -> None:
    turns = ("raise", "wrong", "nan")
    environments.run([call(n) for n in range(3)])
    results = environments.run([call(n, text) for n, text in enumerate(turns)])
    assert [result.failure for result in results] == ["error"] * 3
    raised, wrong, nan = (result.message for result in results)
    assert raised.endswith("guess.py, line 12, in step: KeyError: 'no such thing'")
    assert "step returned 'only a text'; expected (observation, reward, done)" in wrong
    assert "step returned ('', nan, False)" in nan


def test_a_call_that_takes_too_long_is_ended(file: Path) -> None:
    settings = PythonEnvironment(path=str(file), name="Guess", workers=1, timeout_s=2.0)
    own = OwnEnvironments(settings)
    try:
        own.begin()
        own.run([call(0), call(1)])
        slow, other = own.run([call(0, "sleep"), call(1, "2")])
    finally:
        own.close()
    assert (slow.failure, slow.message[-25:]) == ("timeout", "did not return within 2 s")
    assert told([other]) == [("turn 1: more", None, False)]


def test_conversations_of_an_earlier_call_are_forgotten(environments: OwnEnvironments) -> None:
    environments.run([call(0)])
    environments.run([call(0, "9")])
    environments.begin()
    assert told(environments.run([call(0)])) == [("seed 100", None, False)]
    assert told(environments.run([call(0, "9")])) == [("turn 1: less", None, False)]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Gues", r"guess\.py defines no environment 'Gues' \(it defines: Broken, Guess\)"),
        ("os", r"defines no environment 'os'"),
    ],
)
def test_a_file_without_the_environment_is_refused(file: Path, name: str, message: str) -> None:
    own = OwnEnvironments(PythonEnvironment(path=str(file), name=name))
    with pytest.raises(UserError, match=message):
        own.check()
    own.close()


def test_a_reset_that_returns_no_text_is_a_failure(file: Path) -> None:
    own = OwnEnvironments(PythonEnvironment(path=str(file), name="Broken", workers=1))
    try:
        own.begin()
        (result,) = own.run([call(0)])
    finally:
        own.close()
    assert "reset returned 5; expected a text or None" in result.message


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    settings = PythonEnvironment(path=str(tmp_path / "none.py"), name="Guess")
    with pytest.raises(UserError, match="not a Python file that can be read"):
        OwnEnvironments(settings)
