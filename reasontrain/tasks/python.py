"""A reward of one's own: a function in a Python file of the user, beside any file of problems."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Literal, SupportsFloat

from reasontrain.data.files import Columns, Row, Source
from reasontrain.tasks.problems import problems_of
from reasontrain.types import AtLeastOne, Problem, RunError, UserError

Score = Callable[[Mapping[str, object], str], SupportsFloat]
"""score(problem, response) -> reward; `problem` has id, prompt, answer, solution and its row's
columns as the file has them.
"""


@dataclass(frozen=True, kw_only=True)
class PythonTask:
    """Problems of a file, rewarded by `function` of the Python file `path`.

    The function gets the problem as a dict of its own and the response as text, and returns a
    finite number. The file is run once per process, when the first response is scored (or by
    `load`), and is trusted as the recipe is.
    """

    path: str
    problems_path: str
    kind: Literal["python"] = "python"
    function: str = "score"
    columns: Columns = field(default_factory=Columns)
    limit: AtLeastOne | None = None
    instruction: str = ""

    def problems(self) -> list[Problem]:
        """Every problem; raises UserError where the data cannot be read."""
        return [problem for problem, _ in self._read.values()]

    @cached_property
    def _read(self) -> Mapping[str, tuple[Problem, Row]]:
        """The problems by id, each with its row: `about` holds text only, and a reward may need
        lists and numbers.
        """
        table = Source(path=self.problems_path, limit=self.limit).table()
        problems = problems_of(
            table, self.columns, instruction=self.instruction, split=lambda *cells: cells
        )
        return {
            problem.id: (problem, row) for problem, row in zip(problems, table.rows, strict=True)
        }

    def load(self) -> Score:
        """The function itself; raises UserError where the file or the function is not there or does
        not load.
        """
        return _load(str(Path(self.path).resolve()), self.function)

    def reward(self, problem: Problem, response: str) -> float:
        """What the function says of this response; raises RunError where it fails or returns no
        finite number.
        """
        _, row = self._read.get(problem.id, (problem, problem.about))
        asked = {
            **copy.deepcopy(dict(row)),
            "id": problem.id,
            "prompt": problem.prompt,
            "answer": problem.answer,
            "solution": problem.solution,
        }
        where = f"{self.path}, function {self.function!r}, problem {problem.id!r}"
        score = self.load()
        try:
            reward = score(asked, response)
        except Exception as error:  # the user's own code: say which problem it failed on
            raise RunError(f"{where}: {type(error).__name__}: {error}") from error
        number = _number(reward)
        if not math.isfinite(number):
            raise RunError(f"{where}: returned {reward!r}; expected a finite number")
        return number


def _number(reward: object) -> float:
    """Whatever is a number, those of numpy and torch too; NaN for anything else."""
    try:
        return float(reward) if isinstance(reward, SupportsFloat) else math.nan
    except (
        TypeError,
        ValueError,
        OverflowError,
        RuntimeError,
    ):  # an array of many, or an integer beyond all floats
        return math.nan


@cache
def _load(path: str, function: str) -> Score:
    spec = spec_from_file_location(f"reasontrain_reward_{Path(path).stem}", path)
    if not Path(path).is_file() or spec is None or spec.loader is None:
        raise UserError(
            f"{path} is no Python file; expected one that defines {function}(problem, response)"
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
    score: Score = names[function]
    return score
