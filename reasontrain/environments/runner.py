"""The environments of many conversations at once, in this process or in workers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from reasontrain.data.environment import CalculatorEnvironment, EnvironmentSettings
from reasontrain.environments.calculator import Calculator
from reasontrain.environments.processes import OwnEnvironments
from reasontrain.environments.protocol import EpisodeCall, StepResult


@runtime_checkable
class EnvironmentRunner(Protocol):
    """The environments of conversations that are held at the same time."""

    def begin(self) -> None:
        """Forget all conversations."""

    def run(self, calls: Sequence[EpisodeCall]) -> list[StepResult]:
        """Make calls of different conversations; their results, in order."""
        ...

    def check(self) -> None:
        """Raise UserError if there is no such environment."""

    def close(self) -> None:
        """End every process."""


class Calculators:
    """Calculators, which keep nothing between their calls."""

    def __init__(self, settings: CalculatorEnvironment) -> None:
        self.calculator = Calculator(shuffled=settings.shuffled)

    def begin(self) -> None:
        """Nothing to forget."""

    def run(self, calls: Sequence[EpisodeCall]) -> list[StepResult]:
        """See `EnvironmentRunner`."""
        return [self._run(call) for call in calls]

    def check(self) -> None:
        """Nothing can fail."""

    def close(self) -> None:
        """Nothing to end."""

    def _run(self, call: EpisodeCall) -> StepResult:
        if not call.turns:
            return StepResult()
        observation, reward, done = self.calculator.step(call.turns[-1])
        return StepResult(observation=observation or "", reward=reward, done=done)


class Runners:
    """The runners of one sampler: one for each environment that it has met."""

    def __init__(self) -> None:
        self._runners: dict[EnvironmentSettings, EnvironmentRunner] = {}
        self._failures: set[tuple[str, ...]] = set()

    def is_first(self, message: str) -> bool:
        """True if no failure of this kind was reported before: the first is worth a warning."""
        kind = tuple(message.split(": ")[:2])
        is_new = kind not in self._failures
        self._failures.add(kind)
        return is_new

    def of(self, settings: EnvironmentSettings) -> EnvironmentRunner:
        """The runner of these settings, which keeps its processes between calls."""
        if settings not in self._runners:
            self._runners[settings] = make_runner(settings)
        return self._runners[settings]

    def close(self) -> None:
        """End all processes."""
        for runner in self._runners.values():
            runner.close()
        self._runners.clear()


def make_runner(settings: EnvironmentSettings) -> EnvironmentRunner:
    """Build the runner of an environment; no process starts before its first call."""
    if isinstance(settings, CalculatorEnvironment):
        return Calculators(settings)
    return OwnEnvironments(settings)
