"""Problems of a file with the user's own reward: a function in a Python file."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import ClassVar, Literal, SupportsFloat

from reasontrain.data.files import BadRows, Columns, Row, Source
from reasontrain.tasks.grading import AnswerFormat, Grader, Verdict
from reasontrain.tasks.problems import problems_with_rows
from reasontrain.tasks.reward import Reward
from reasontrain.tasks.task import Response, Scored, Task
from reasontrain.types import AtLeastOne, Problem, RunError, UserError

RewardFunction = Callable[[Mapping[str, object], str], SupportsFloat]
"""The user's function `score(problem, response) -> reward`.

`problem` is a dict of id, prompt, answer, solution and the columns of its row with their types.
"""


@dataclass(frozen=True, kw_only=True)
class PythonTask(Task):
    """Problems of a file, rewarded by `function` of the Python file `path`.

    The function gets a copy of the problem as a dict and the response as text, and returns a finite
    number; a response is right if its reward is at least 1. The file is executed once per process,
    and is trusted like the recipe.
    """

    has_own_reward: ClassVar[bool] = True

    path: str
    problems_path: str
    kind: Literal["python"] = "python"
    function: str = "score"
    columns: Columns = field(default_factory=Columns)
    limit: AtLeastOne | None = None
    instruction: str = ""
    bad_rows: BadRows = "refuse"

    def problems(self) -> list[Problem]:
        """Every problem; raise UserError if the data cannot be read."""
        return [problem for problem, _ in self._read.values()]

    @cached_property
    def _read(self) -> Mapping[str, tuple[Problem, Row]]:
        """The problems by id, each with its row."""
        # `Problem.about` holds text only, but a reward may need lists and numbers
        source = Source(
            path=self.problems_path,
            columns=self.columns,
            limit=self.limit,
            bad_rows=self.bad_rows,
        )
        rows = problems_with_rows(source, instruction=self.instruction, split=lambda *cells: cells)
        return {problem.id: (problem, row) for problem, row in rows}

    def load(self) -> RewardFunction:
        """Load the function; raise UserError if the file or the function is missing or fails."""
        return _load(str(Path(self.path).resolve()), self.function)

    def check_gradable(
        self, problems: Sequence[Problem], grader: Grader, *, required: bool
    ) -> None:
        """Load the function; raise UserError if that fails."""
        self.load()

    def grade(
        self,
        responses: Sequence[Response],
        grader: Grader,
        reward: Reward | None = None,
        *,
        answer_format: AnswerFormat = "marked",
    ) -> list[Scored]:
        """Grade responses with the function (see `Task`).

        Args:
            responses: the responses.
            grader: not used.
            reward: not used.
            answer_format: not used.

        Returns:
            The function's reward of each response, in order, with a verdict that is right if the
            reward is at least 1.

        Raises:
            RunError: the function fails, or does not return a finite number.
        """
        rewards = [self.reward(r.problem, r.text) for r in responses]
        return [Scored(value, Verdict(value >= 1.0, "", "own reward")) for value in rewards]

    def reward(self, problem: Problem, response: str) -> float:
        """Call the function; raise RunError if it fails or returns no finite number."""
        _, row = self._read.get(problem.id, (problem, problem.about))
        fields = {
            **copy.deepcopy(dict(row)),
            "id": problem.id,
            "prompt": problem.prompt,
            "answer": problem.answer,
            "solution": problem.solution,
        }
        where = f"{self.path}, function {self.function!r}, problem {problem.id!r}"
        score = self.load()
        try:
            reward = score(fields, response)
        except Exception as error:  # any error of the user's code; the message names the problem
            raise RunError(f"{where}: {type(error).__name__}: {error}") from error
        number = _number(reward)
        if not math.isfinite(number):
            raise RunError(f"{where}: returned {reward!r}; expected a finite number")
        return number


def _number(reward: object) -> float:
    """Convert numbers, including those of numpy and torch; NaN for anything else."""
    try:
        return float(reward) if isinstance(reward, SupportsFloat) else math.nan
    # arrays with several elements, and integers beyond the range of floats
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return math.nan


@cache
def _load(path: str, function: str) -> RewardFunction:
    spec = spec_from_file_location(f"reasontrain_reward_{Path(path).stem}", path)
    if not Path(path).is_file() or spec is None or spec.loader is None:
        raise UserError(
            f"{path} is not a Python file; expected one that defines {function}(problem, response)"
        )
    module = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the user's own code
        raise UserError(f"{path} cannot be loaded: {type(error).__name__}: {error}") from error
    names = vars(module)
    if not callable(names.get(function)):
        has = (
            ", ".join(
                sorted(
                    name
                    for name, value in names.items()
                    if callable(value) and not name.startswith("_")
                )
            )
            or "none"
        )
        raise UserError(f"{path} defines no function {function!r} (it defines: {has})")
    score: RewardFunction = names[function]
    return score
