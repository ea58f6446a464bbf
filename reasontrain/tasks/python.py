"""Problems of a file with the user's own reward: a function in a Python file."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

from reasontrain.data.files import BadRows, Columns, Row, Source, files_of
from reasontrain.plugins.imports import with_imports
from reasontrain.tasks.grading import AnswerFormat, Grader, Verdict
from reasontrain.tasks.own_reward import Call, Outcome, RewardFile
from reasontrain.tasks.problems import problems_with_rows
from reasontrain.tasks.reward import Reward
from reasontrain.tasks.task import Response, Scored, Task
from reasontrain.types import AtLeastOne, Positive, Problem, RunError, UserError

logger = logging.getLogger(__name__)
output_logger = logging.getLogger(f"{__name__}.output")
"""Receives, at level DEBUG, what reward functions print and every failure with its traceback."""


@dataclass(frozen=True, kw_only=True)
class PythonTask(Task):
    """Problems of a file, rewarded by `function` of the Python file `path`.

    The function gets a copy of the problem as a dict and the response as text; `truncated` and
    `unfinished` too (see `Response`), if it has parameters of these names. It returns a finite
    number; or None, which leaves the rollout out of the step; or a dict of such numbers, of which
    `reward` is the reward and the others are logged. A response is right if its reward is at least
    1. The file is loaded once per worker process, and is trusted like the recipe.

    Attributes:
        path: the Python file; workers run it as it was when the run began.
        problems_path: the file of problems.
        function: the function's name; it may be async, and then calls overlap in each worker.
        columns: names of columns that differ from the usual ones.
        limit: read only this many problems, from the start.
        instruction: text put after each problem.
        bad_rows: "refuse" makes a row that cannot be used an error, "drop" drops and counts it.
        timeout_s: longest call, in seconds of wall time.
        on_error: what a call does that raises, does not return in time, ends its process or returns
            anything else: `stop` the run, `drop` the rollout as None does, or count `zero`.
        workers: worker processes that call the function, on each machine that grades.
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
    timeout_s: Positive = 60.0
    on_error: Literal["stop", "drop", "zero"] = "stop"
    workers: AtLeastOne = 8

    def files(self) -> tuple[Path, ...]:
        """The problems, the function's file, and the modules beside it that it imports."""
        return *files_of(self.problems_path), *with_imports(Path(self.path))

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

    @cached_property
    def reward_file(self) -> RewardFile:
        """The function with its file's content; raise UserError if the file cannot be read."""
        path = Path(self.path).resolve()
        try:
            source = path.read_bytes()
        except OSError as error:
            raise UserError(
                f"{self.path} is not a Python file that can be read ({error.strerror}); expected "
                f"one that defines {self.function}(problem, response)"
            ) from error
        return RewardFile(
            path=str(path),
            source=source,
            function=self.function,
            timeout_s=self.timeout_s,
            workers=self.workers,
        )

    def check_gradable(
        self, problems: Sequence[Problem], grader: Grader, *, required: bool
    ) -> None:
        """Load the function in a worker; raise UserError if that fails."""
        grader.load_own_reward(self.reward_file)

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
            grader: calls the function in worker processes.
            reward: not used.
            answer_format: not used.

        Returns:
            The function's reward of each response, in order, with a verdict that is right if the
            reward is at least 1.

        Raises:
            RunError: a call failed, and `on_error` is `stop`.
        """
        try:
            outcomes = grader.own_rewards(
                self.reward_file,
                [self._call(response) for response in responses],
                stop_at_failure=self.on_error == "stop",
            )
        except UserError as error:  # a worker that replaces another may fail to load the file
            raise RunError(str(error)) from error
        for response, outcome in zip(responses, outcomes, strict=True):
            if outcome is not None:
                self._record(response.problem, outcome)
        return [self._scored_outcome(outcome) for outcome in outcomes if outcome is not None]

    def _call(self, response: Response) -> Call:
        problem = response.problem
        _, row = self._read.get(problem.id, (problem, problem.about))
        fields = {
            **row,
            "id": problem.id,
            "prompt": problem.prompt,
            "answer": problem.answer,
            "solution": problem.solution,
        }
        about = {"truncated": response.truncated, "unfinished": response.unfinished}
        return fields, response.text, about

    def _record(self, problem: Problem, outcome: Outcome) -> None:
        """Log what a call printed and how it failed; raise RunError if that stops the run."""
        where = f"problem {problem.id!r}"
        if outcome.output:
            output_logger.debug(f"{where} printed:\n{outcome.output.rstrip()}")
        if outcome.failure is None:
            return
        trace = f"\n{outcome.trace}" if outcome.trace else ""
        failure = f"{outcome.message} ({where}){trace}"
        output_logger.debug(failure)
        self._warn_once(outcome, where)
        if self.on_error == "stop":
            raise RunError(
                f"{failure}\n`task.on_error: drop` leaves such rollouts out, and `zero` gives them "
                "the reward 0"
            )

    def _warn_once(self, outcome: Outcome, where: str) -> None:
        """Warn of the first failure of its kind; all are counted and logged."""
        kind = tuple(outcome.message.split(": ")[:2])
        if self.on_error == "stop" or kind in self._warned:
            return
        self._warned.add(kind)
        effect = "get no reward" if self.on_error == "drop" else "get the reward 0"
        logger.warning(
            f"{outcome.message} ({where}); such responses {effect} (on_error: {self.on_error}) "
            "and are counted"
        )

    @cached_property
    def _warned(self) -> set[tuple[str, ...]]:
        """The kinds of failures that the user was warned of."""
        return set()

    def _scored_outcome(self, outcome: Outcome) -> Scored:
        reward = 0.0 if outcome.failure and self.on_error == "zero" else outcome.reward
        reason = outcome.failure or ("own reward" if reward is not None else "no reward")
        correct = reward is not None and reward >= 1.0
        return Scored(reward, Verdict(correct, "", reason), outcome.parts, outcome.failure)
