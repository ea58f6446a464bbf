"""The user's environments in worker processes that can be killed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar, cast

from reasontrain.data.environment import PythonEnvironment
from reasontrain.environments.protocol import EpisodeCall, StepResult
from reasontrain.tasks.own_reward import RewardFile
from reasontrain.tasks.own_reward.pool import LostWorkerError, RewardProcess
from reasontrain.types import RunError, UserError

output_logger = logging.getLogger("reasontrain.tasks.python.output")
"""Receives what environments print and every failure with its traceback, as of own rewards."""


def environment_file(settings: PythonEnvironment) -> RewardFile:
    """The user's file as it was when it was first read; raise UserError if it cannot be read."""
    return RewardFile(
        path=settings.absolute,
        source=settings.source,
        function=settings.name,
        timeout_s=settings.timeout_s,
        workers=settings.workers,
    )


class EnvironmentProcess(RewardProcess):
    """A worker that holds the environments of some conversations.

    Attributes:
        rollouts: the conversations of `epoch` that it holds.
    """

    is_environment: ClassVar[bool] = True

    def __init__(self, file: RewardFile) -> None:
        """Start the process and load the file; raise UserError if that fails."""
        self.epoch = -1
        self.rollouts: set[int] = set()
        super().__init__(file)

    def run(self, call: EpisodeCall, epoch: int) -> StepResult:
        """Make a call; raise LostWorkerError, after which the worker must be killed."""
        if epoch != self.epoch:
            self.rollouts.clear()
            self.epoch = epoch
        # a conversation that another worker began is repeated, each call in its own time
        num_calls = 1 if call.rollout in self.rollouts else 1 + len(call.turns)
        self.rollouts.add(call.rollout)
        message = (epoch, call.rollout, call.seed, call.problem_fields, list(call.turns))
        limit_s = num_calls * self._file.timeout_s
        reply, output = self._exchange(([message], limit_s), limit_s)
        output = self._printed + output
        self._printed = ""
        (content,) = cast("list[dict[str, object]]", reply)
        match content:
            case {
                "observation": str() as observation,
                "reward": float() | int() | None as reward,
                "done": bool() as done,
            }:
                return StepResult(observation=observation, reward=reward, done=done, output=output)
        failed = self._outcome(content, output)
        return StepResult(
            failure=failed.failure, message=failed.message, trace=failed.trace, output=output
        )

    def _missing(self, public: str) -> str:
        file = self._file
        return f"{file.path} defines no environment {file.function!r} (it defines: {public})"


class OwnEnvironments:
    """The environments of a user's file, in up to `workers` processes.

    A conversation stays with one worker. A worker that a call ends is replaced, and its other
    conversations are repeated in the new one.
    """

    def __init__(self, settings: PythonEnvironment) -> None:
        self.file = environment_file(settings)
        self._processes: list[EnvironmentProcess | None] = [None] * settings.workers
        self._epoch = 0

    def begin(self) -> None:
        """Forget all conversations."""
        self._epoch += 1

    def run(self, calls: Sequence[EpisodeCall]) -> list[StepResult]:
        """Make calls of different conversations.

        Args:
            calls: the calls.

        Returns:
            Their results, in order.

        Raises:
            RunError: the file cannot be loaded any more.
        """
        number = len(self._processes)
        results: dict[int, StepResult] = {}

        def run_of(worker: int) -> None:
            for index, call in enumerate(calls):
                if call.rollout % number == worker:
                    results[index] = self._run(worker, call)

        busy = sorted({call.rollout % number for call in calls})
        if not busy:
            return []
        with ThreadPoolExecutor(len(busy)) as threads:
            try:
                list(threads.map(run_of, busy))
            except BaseException:
                # somebody wants to end the run now, not after the calls that are running
                for process in self._processes:
                    if process is not None:
                        process.interrupt()
                raise
        return [results[index] for index in range(len(calls))]

    def check(self) -> None:
        """Load the file in a worker; raise UserError if that fails."""
        self._processes[0] = self._processes[0] or EnvironmentProcess(self.file)

    def close(self) -> None:
        """End every worker."""
        for index, process in enumerate(self._processes):
            if process is not None:
                process.kill()
            self._processes[index] = None

    def _run(self, worker: int, call: EpisodeCall) -> StepResult:
        process = self._processes[worker]
        try:
            if process is None:
                process = self._processes[worker] = EnvironmentProcess(self.file)
            result = process.run(call, self._epoch)
        except UserError as error:  # the file was loaded before
            raise RunError(str(error)) from error
        except LostWorkerError as dead:
            assert process is not None, "only a worker that was started raises this"
            process.kill()
            self._processes[worker] = None
            where = f"{self.file.path}, environment {self.file.function!r}"
            result = StepResult(
                failure=dead.failure, message=f"{where}: {dead.reason}", output=dead.output
            )
        _log(call, result)
        return result


def _log(call: EpisodeCall, result: StepResult) -> None:
    """Log what a call printed and how it failed."""
    where = f"problem {call.problem.id!r}"
    if result.output:
        output_logger.debug(f"{where} printed:\n{result.output.rstrip()}")
    if result.failure is not None:
        trace = f"\n{result.trace}" if result.trace else ""
        output_logger.debug(f"{result.message} ({where}){trace}")
