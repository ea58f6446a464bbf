"""Settings of environments: what answers the policy between its turns, and the limits of that."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

from reasontrain.types import AtLeastOne, Positive, UserError

Role = Literal["inline", "user", "tool"]
"""The form of an observation: text within the response, or a turn of this role."""
OnError = Literal["stop", "drop", "zero"]


@dataclass(frozen=True, kw_only=True)
class _Limits:
    """Limits of a conversation; `sample.max_tokens` limits its length, observations included.

    Attributes:
        max_turns: turns of the policy. A conversation that the environment has not ended by then is
            truncated.
        observation_tokens: tokens of an observation; the rest of a longer one is cut off.
    """

    max_turns: AtLeastOne = 8
    observation_tokens: AtLeastOne = 256


@dataclass(frozen=True, kw_only=True)
class CalculatorEnvironment(_Limits):
    """A calculator inside the response: after `<<37*46>>` follows `=1702`.

    It knows + - * / and brackets; anything else is answered with `=error`. With `shuffled`, answers
    belong to other calculations with numbers of as many digits, the control of an experiment. The
    task grades the text after the last call.
    """

    kind: Literal["calculator"] = "calculator"
    shuffled: bool = False

    role: ClassVar[Role] = "inline"
    stop: ClassVar[tuple[str, ...]] = (">>",)
    on_error: ClassVar[OnError] = "stop"
    gives_reward: ClassVar[bool] = False


@dataclass(frozen=True, kw_only=True)
class PythonEnvironment(_Limits):
    """The class `name` of the Python file `path`, called in worker processes.

    Attributes:
        path: the Python file; workers run it as it was when the run began.
        name: the class, or a function that returns an environment. It is called without arguments
            for every conversation.
        role: the form of observations: `user` or `tool` turns of the chat template, or `inline`,
            as text within the response, after a turn that ended with a text of `stop`.
        stop: a turn ends after the token that completes one of these texts, or as a response does.
        reward: `environment` adds up the rewards of the turns; `task` grades the text after the
            last observation.
        timeout_s: longest call, in seconds of wall time.
        on_error: what a call does that raises, does not return in time, ends its process or returns
            anything else: `stop` the run, `drop` the rollout, or let it end with the reward `zero`.
        workers: worker processes, in each process that samples.
    """

    path: str
    name: str
    kind: Literal["python"] = "python"
    role: Role = "user"
    stop: tuple[str, ...] = ()
    reward: Literal["environment", "task"] = "environment"
    timeout_s: Positive = 60.0
    on_error: OnError = "stop"
    workers: AtLeastOne = 8

    def __post_init__(self) -> None:
        if "" in self.stop:
            raise ValueError(
                "`stop` holds an empty text, which would end every turn at once; remove it"
            )
        if self.role == "inline" and not self.stop:
            raise ValueError(
                "`role: inline` needs a text that ends a turn before the response ends; name it in "
                "`stop`, or use `role: user`"
            )

    @property
    def gives_reward(self) -> bool:
        """The environment computes the reward, in place of the task."""
        return self.reward == "environment"

    @cached_property
    def source(self) -> bytes:
        """The file's content when it was first read; raise UserError if it cannot be read."""
        try:
            return Path(self.path).read_bytes()
        except OSError as error:
            raise UserError(
                f"{self.path} is not a Python file that can be read ({error.strerror}); expected "
                f"one that defines the environment {self.name}"
            ) from error

    @cached_property
    def absolute(self) -> str:
        """The file's path as the process that read the recipe resolves it."""
        return str(Path(self.path).resolve())


EnvironmentSettings = CalculatorEnvironment | PythonEnvironment
