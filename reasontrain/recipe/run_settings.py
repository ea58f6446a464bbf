"""Settings of evaluation, checkpoints and logging during a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import MinLen

from reasontrain.data.prompts import PromptSettings
from reasontrain.data.sampling import Sampling
from reasontrain.recipe.constraints import KIND, Count, Name
from reasontrain.tasks import AnswerFormat, TaskSettings
from reasontrain.types import AtLeastOne, Positive


@dataclass(frozen=True, kw_only=True)
class Suite:
    """One evaluation suite: problems, prompts, number of answers and sampling settings.

    Attributes:
        name: name of the suite in results.
        version: results are comparable within one version.
        file: name of the same problems as a file of a `math` or `gsm8k` task. It is read instead
            of the task's source if `$REASONTRAIN_DATA`, or --data, names the folder with it.
        sha256: hash that this file must have.
        task: the problems; None: the recipe's own task on its held-out split.
        prompt: prompt settings; None: the recipe's own.
        sampling: greedy by default.
        answer_format: what counts as an answer, `boxed`, `marked` or `any`; None: as the task.
        num_samples: answers per problem.
        pass_at: the k of each pass@k and maj@k; 1 adds nothing, since it is the accuracy.
        limit: use only this many problems, from the first.
    """

    name: Name
    version: AtLeastOne = 1
    file: str | None = None
    sha256: str | None = None
    task: Annotated[TaskSettings, KIND] | None = None
    prompt: PromptSettings | None = None
    sampling: Sampling = field(default_factory=lambda: Sampling(temperature=0.0))
    answer_format: AnswerFormat | None = None
    num_samples: AtLeastOne = 1
    pass_at: tuple[AtLeastOne, ...] = ()
    limit: AtLeastOne | None = None

    def __post_init__(self) -> None:
        if self.pass_at and max(self.pass_at) > self.num_samples:
            raise ValueError(
                f"pass_at {max(self.pass_at)} needs as many samples, and num_samples is "
                f"{self.num_samples}"
            )


@dataclass(frozen=True, kw_only=True)
class EvaluateSettings:
    """Evaluation before the first step, every `every` steps (0: never) and after the last."""

    suites: Annotated[tuple[Suite, ...], MinLen(1)]
    every: Count = 0
    before: bool = True


@dataclass(frozen=True, kw_only=True)
class CheckpointSettings:
    """Checkpoints in addition to those at the last step and at an interrupt.

    One is written every `every` steps (0: never), and the newest `keep` are retained. `best` names
    a suite of `evaluate`: the checkpoint with the highest accuracy on it is retained too. After a
    signal to stop, the step under way ends and a checkpoint is written; if this takes longer than
    `stop_within_s` seconds, the run ends with the last checkpoint.
    """

    every: Count = 0
    keep: AtLeastOne = 2
    best: Name | None = None
    stop_within_s: Positive = 300.0

    @property
    def num_kept(self) -> int:
        """The most checkpoints on disk at a time."""
        return self.keep + (self.best is not None)


AcceptedChange = Literal[
    "data",
    "reward",
    "environment",
    "evidence",
    "plugin",
    "model",
    "tokenizer",
    "template",
    "teacher",
    "reference",
    "history",
    "suites",
    "schedule",
]
"""A role of what a run depends on beside its recipe."""


@dataclass(frozen=True, kw_only=True)
class ResumeSettings:
    """Changes that a resumed run accepts; each is recorded in the run directory.

    A run is refused if files, weights or code that its steps depend on have changed since its first
    step, unless `accept` names their role: `data` (rows of the task), `reward` and `environment`
    (the file of an own reward or environment), `evidence` (stored columns), `plugin` (files of
    plug-ins), `model`, `teacher`, `reference` and `history` (weights), `tokenizer`, `template` and
    `suites`. `schedule` accepts that schedules span a new number of `steps`.
    """

    accept: tuple[AcceptedChange, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TrackSettings:
    """Destinations of metrics besides metrics.jsonl, and frequency of token files.

    Steps are counted from 1, everywhere. Token files are written for the first step and every
    `tokens_every` steps after it (0: for none), with the first `tokens_rollouts` rollouts of each.
    """

    tensorboard: bool = True
    service: Literal["wandb", "trackio"] | None = None
    project: str = "reasontrain"
    tokens_every: Count = 10
    tokens_rollouts: AtLeastOne = 16


def is_due(every: int, count: int) -> bool:
    """True if an event that occurs every `every` steps (0: never) is due at this count."""
    return every > 0 and count % every == 0
