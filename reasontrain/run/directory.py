"""The run directory: names, writers and readers of every file that a run leaves.

```
out/<name>/
  recipe.yaml              the recipe, resolved
  reward.py                the own reward function's file, as the run began with it
  rewards/                 those of suites and stages, as suite-NAME.py and stage-NAME.py, and the
                           files of environments, as environment.py and environment-SUITE.py
  rewards.log              what an own reward function or environment printed, and its errors
  plugins/                 the files of plug-ins, where recipe.yaml finds them
  environment.json         versions, commit, hardware, seed, attention and its kernels
  inputs.json              fingerprints of data, weights, code and suites; accepted changes
  metrics.jsonl            one line per step, counted from 1, written as it happens
  evaluations.jsonl        one line per suite and evaluation
  tokens/                  rollouts of some steps with evidence and weights
  answers/                 the answers to each suite, one file per evaluation
  checkpoints/step-N/      the model and the optimizer's state after N steps (see `run.checkpoint`)
  final/                   the model after the last step
  report.html, report.json
  lens/                    the pages of `reasontrain lens`; lens/index.html is the first
  logs/                    what each process of a cluster printed
  stages/                  links to the outputs of the recipe's stages
  tensorboard/
  owner.json               the process that writes here, while it runs (see `run.owner`)
```
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from reasontrain.data import storage
from reasontrain.plugins import COPIES
from reasontrain.types import UserError

STEP = "step-"


class Estimate(TypedDict):
    """A measured number; its interval stands beside it."""

    value: float


class EvaluationLine(TypedDict):
    """A line of the evaluations, as far as it is read again."""

    step: int
    suite: str
    metrics: dict[str, Estimate]


class EnvironmentFacts(TypedDict):
    """Facts about how a run was made, as far as they are read again."""

    device: str
    versions: dict[str, str]


class InputsRecord(TypedDict):
    """Fingerprints of what a run depends on, by role and part; and changes that were accepted."""

    inputs: dict[str, dict[str, str]]
    accepted: list[dict[str, object]]


@dataclass(frozen=True)
class RunDirectory:
    """Files of one run by what they hold."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    @property
    def recipe(self) -> Path:
        """The resolved recipe, as YAML."""
        return self.path / "recipe.yaml"

    @property
    def reward_code(self) -> Path:
        """The Python file of an own reward function, as it was when the run (last) began."""
        return self.path / "reward.py"

    @property
    def rewards_log(self) -> Path:
        """The output of an own reward function, and its errors, each with its problem's id."""
        return self.path / "rewards.log"

    @property
    def environment(self) -> Path:
        """Versions, hardware and seed, as JSON."""
        return self.path / "environment.json"

    @property
    def inputs(self) -> Path:
        """Fingerprints of what the run depends on beside its recipe, as JSON."""
        return self.path / "inputs.json"

    @property
    def owner(self) -> Path:
        """The process that writes here, as JSON; see `run.owner`."""
        return self.path / "owner.json"

    @property
    def metrics(self) -> Path:
        """JSON lines, one per step."""
        return self.path / "metrics.jsonl"

    @property
    def evaluations(self) -> Path:
        """JSON lines, one per suite and evaluation."""
        return self.path / "evaluations.jsonl"

    @property
    def tokens(self) -> Path:
        """The folder of token files."""
        return self.path / "tokens"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def final(self) -> Path:
        """The model after the last step; there as soon as the run is finished."""
        return self.path / "final"

    @property
    def report_page(self) -> Path:
        """The report for people."""
        return self.path / "report.html"

    @property
    def report_numbers(self) -> Path:
        """The report for programs."""
        return self.path / "report.json"

    @property
    def lens(self) -> Path:
        """The folder of the pages of `reasontrain lens`."""
        return self.path / "lens"

    @property
    def lens_page(self) -> Path:
        """The first page of the lens."""
        return self.lens / "index.html"

    @property
    def logs(self) -> Path:
        """The folder where each process of a cluster writes what it prints (`<role>-<rank>.log`)
        and where it runs (`<role>-<rank>.json`).
        """
        return self.path / "logs"

    @property
    def stages(self) -> Path:
        """The folder of links to the outputs of stages."""
        return self.path / "stages"

    @property
    def tensorboard(self) -> Path:
        """The folder of TensorBoard's event files."""
        return self.path / "tensorboard"

    def answers(self, suite: str, step: int) -> Path:
        """The answers to a suite after `step` steps, as JSON lines."""
        return self.path / "answers" / f"{suite}-{STEP}{step}.jsonl"

    def tokens_at(self, step: int) -> Path:
        """Rollouts of a step, counted from 1, with evidence and weights, as JSON lines."""
        return self.tokens / f"{STEP}{step}.jsonl"

    def nonfinite_tokens_at(self, step: int | str) -> Path:
        """All rollouts of a step whose gradient was not finite; "*" stands for any step."""
        return self.tokens / f"nonfinite-{STEP}{step}.jsonl"

    def checkpoint_at(self, step: int) -> Path:
        """The checkpoint after `step` steps."""
        return self.checkpoints / f"{STEP}{step}"

    def is_empty(self) -> bool:
        """Nothing is there but the owner's file, or not even the folder."""
        return not self.path.exists() or not any(
            self.owner.name not in path.name for path in self.path.iterdir()
        )

    def write_recipe(self, text: str) -> None:
        """Keep the resolved recipe, as a whole or not at all."""
        storage.replace_text(self.recipe, text)

    def write_reward_code(self, source: bytes, part: str | None = None) -> None:
        """Keep the code of the own reward function, or of that of another part of the recipe."""
        path = self.reward_code if part is None else self.path / "rewards" / f"{part}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        storage.replace_bytes(path, source)

    def write_plugins(self, files: Mapping[str, bytes]) -> None:
        """Keep the files of plug-ins, by their path below the folder of copies."""
        for name, content in files.items():
            path = self.path / COPIES / name
            path.parent.mkdir(parents=True, exist_ok=True)
            storage.replace_bytes(path, content)

    def write_environment(self, facts: Mapping[str, object]) -> None:
        """Keep what the run was made with, as a whole or not at all."""
        storage.replace_text(self.environment, json.dumps(facts, indent=1))

    def read_environment(self) -> EnvironmentFacts:
        """The facts that `write_environment` wrote."""
        facts: EnvironmentFacts = json.loads(self.environment.read_text(encoding="utf-8"))
        return facts

    def write_inputs(
        self,
        inputs: Mapping[str, Mapping[str, str]],
        accepted: Sequence[Mapping[str, object]],
    ) -> None:
        """Keep fingerprints and accepted changes, as a whole or not at all."""
        record = {"inputs": inputs, "accepted": accepted}
        storage.replace_text(self.inputs, json.dumps(record, indent=1, ensure_ascii=False))

    def read_inputs(self) -> InputsRecord | None:
        """The record that `write_inputs` wrote; None before that."""
        if not self.inputs.exists():
            return None
        record: InputsRecord = json.loads(self.inputs.read_text(encoding="utf-8"))
        return record

    def append_metrics(self, step: int, stats: Mapping[str, object]) -> None:
        """Add the line of a step, counted from 1."""
        storage.append(self.metrics, {"step": step, **stats})

    def read_metrics(self) -> Iterator[dict[str, float]]:
        """The lines of all steps, in the order in which they were written."""
        yield from map(json.loads, _lines(self.metrics))

    def append_evaluation(self, step: int, record: Mapping[str, object]) -> None:
        """Add the line of a suite that was measured after `step` steps."""
        storage.append(self.evaluations, {"step": step, **record})

    def read_evaluations(self) -> Iterator[EvaluationLine]:
        """The lines of all evaluations, in the order in which they were written."""
        yield from map(json.loads, _lines(self.evaluations))

    def token_files(self) -> dict[int, Path]:
        """The token files by step, in order."""
        return dict(sorted(_numbered(self.tokens, ".jsonl")))

    def checkpoint_directories(self) -> list[tuple[int, Path]]:
        """Checkpoints by step, newest first, whether they are complete or not."""
        return sorted(_numbered(self.checkpoints, ""), reverse=True)

    def rewind(self, done: int | None) -> None:
        """Drop what was written of steps that will be taken again.

        Args:
            done: The number of steps that stay, with the evaluation after the last of them; None
                drops every line, that of an evaluation before the first step too. A last line that
                was cut short goes as well.
        """
        _keep_through(self.metrics, done)
        _keep_through(self.evaluations, done)


@dataclass(frozen=True)
class EvaluationDirectory:
    """Files of `reasontrain evaluate` for one model."""

    path: Path

    @property
    def report(self) -> Path:
        """All suites of the model, as JSON."""
        return RunDirectory(self.path).report_numbers

    @property
    def logs(self) -> Path:
        """The folder where each worker writes what it prints."""
        return RunDirectory(self.path).logs

    def answers(self, suite: str) -> Path:
        """The answers to a suite, as JSON lines."""
        return self.path / f"{suite}.jsonl"


def step_of(directory: Path) -> int:
    """The number of steps of a checkpoint by its directory's name."""
    step = _step(directory.name)
    if step is None:
        raise UserError(f"{directory} is not named as a checkpoint ({STEP}N)")
    return step


def _step(name: str) -> int | None:
    number = name.removeprefix(STEP)
    return int(number) if name.startswith(STEP) and number.isdigit() else None


def _numbered(folder: Path, ending: str) -> Iterator[tuple[int, Path]]:
    """Files and directories `step-N<ending>` by N."""
    for path in folder.glob(f"{STEP}*{ending}"):
        step = _step(path.name.removesuffix(ending))
        if step is not None:
            yield step, path


def _lines(path: Path) -> list[str]:
    """The lines of a file; none of a file that is not there."""
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def _keep_through(path: Path, done: int | None) -> None:
    """Drop lines of later steps, or all of them, and a last line that was cut short."""
    if not path.exists():
        return
    kept = []
    for line in _lines(path):
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if done is not None and record["step"] <= done:
            kept.append(line)
    storage.replace_text(path, "".join(f"{line}\n" for line in kept))
