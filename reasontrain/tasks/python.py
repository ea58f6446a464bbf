"""A reward of one's own: a function in a Python file of the user, beside any file of problems."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Literal

from reasontrain.data.files import Columns, Source
from reasontrain.tasks.problems import problems_of
from reasontrain.types import AtLeastOne, Message, Problem, UserError

Score = Callable[[Mapping[str, str | tuple[Message, ...]], str], float]
"""score(problem, response) -> reward; `problem` has id, prompt, answer, solution and the other columns of its row."""


@dataclass(frozen=True, kw_only=True)
class PythonTask:
    """Problems of a file, rewarded by `function` of the Python file `path`.

    The function gets the problem as a dict and the response as text, and returns a finite number. The file is run once
    per process, when the first response is scored (or by `load`), and is trusted as the recipe is.
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
        table = Source(path=self.problems_path, limit=self.limit).table()
        return problems_of(table, self.columns, instruction=self.instruction, split=lambda answer, solution: (answer, solution))

    def load(self) -> Score:
        """The function itself; raises UserError where the file or the function is not there or does not load."""
        return _load(str(Path(self.path).resolve()), self.function)

    def reward(self, problem: Problem, response: str) -> float:
        """What the function says of this response; raises UserError where it fails or returns no finite number."""
        asked = {
            **problem.about,
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
            raise UserError(f"{where}: {type(error).__name__}: {error}") from error
        if not isinstance(reward, int | float) or not math.isfinite(reward):
            raise UserError(f"{where}: returned {reward!r}; expected a finite number")
        return float(reward)


@cache
def _load(path: str, function: str) -> Score:
    spec = spec_from_file_location(f"reasontrain_reward_{Path(path).stem}", path)
    if not Path(path).is_file() or spec is None or spec.loader is None:
        raise UserError(f"{path} is no Python file; expected one that defines {function}(problem, response)")
    module = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the user's own code
        raise UserError(f"{path} cannot be loaded: {type(error).__name__}: {error}") from error
    names = vars(module)
    if not callable(names.get(function)):
        has = ", ".join(sorted(name for name, value in names.items() if callable(value) and not name.startswith("_"))) or "none"
        raise UserError(f"{path} defines no function {function!r} (it defines: {has})")
    score: Score = names[function]
    return score
