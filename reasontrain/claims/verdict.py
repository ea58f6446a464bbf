"""A row of claims judged: the learning rate of every arm, what the arms reached on held-out
problems, and the verdict.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float64

from reasontrain.claims.saving import Curves, saving
from reasontrain.claims.settings import ClaimRow, PassAt, Saving, suite_of
from reasontrain.evaluation.compare import every_verdict
from reasontrain.evaluation.provenance import Provenance
from reasontrain.metrics.accuracy import (
    Interval,
    mean_per_problem,
    paired_difference,
    pass_per_problem,
)
from reasontrain.recipe import Recipe
from reasontrain.run.directory import RunDirectory
from reasontrain.types import UserError

Verdict = Literal["holds", "does not hold", "cannot tell"]
POINT = 0.01


@dataclass(frozen=True, kw_only=True)
class Made:
    """Where runs come from: code and machine, the device that they computed on, and the packages."""

    origin: Provenance
    device: str
    versions: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Swept:
    """One learning rate of an arm: its accuracy on the development suite, a share for every seed."""

    rate: float
    development: tuple[float, ...]

    @property
    def mean(self) -> float:
        """What rates are chosen by."""
        return math.fsum(self.development) / len(self.development)


@dataclass(frozen=True, kw_only=True)
class ArmRecord:
    """What an arm reached at its rate: a share (accuracy, or pass@k) for every seed, and what it
    cost, mean over the seeds.

    `behind` is the claimed arm less this one; None for the claimed arm itself.
    """

    name: str
    rate: float
    sweep: tuple[Swept, ...]
    runs: tuple[str, ...]
    scores: tuple[float, ...]
    sampled_tokens: float
    trained_tokens: float
    behind: Interval | None


@dataclass(frozen=True, kw_only=True)
class ClaimRecord:
    """A row with its verdict and all that it rests on.

    `minutes` is the time that its runs took, `at_once` of them together.

    `first_runs` names the run of each arm at the first rate with the first seed: the names say
    whether recipes changed since.
    """

    name: str
    row: ClaimRow
    verdict: Verdict
    difference: Interval
    arms: tuple[ArmRecord, ...]
    num_problems: int
    steps: int
    first_runs: dict[str, str]
    minutes: float
    at_once: int
    made: tuple[Made, ...]


def verdict(difference: Interval) -> Verdict:
    """*holds* where the interval lies above 0; else *does not hold* where it lies below 0, or
    within one point of it.
    """
    if difference.low > 0:
        return "holds"
    if difference.high < 0 or (difference.low >= -POINT and difference.high <= POINT):
        return "does not hold"
    return "cannot tell"


def chosen(sweep: Sequence[Swept]) -> float:
    """The rate with the highest mean on the development suite; of equal ones the lowest."""
    return max(sweep, key=lambda swept: (swept.mean, -swept.rate)).rate


def development(runs: Path, recipes: Sequence[Recipe], suite: str) -> tuple[float, ...]:
    """The accuracy of finished runs on a suite after their last steps."""
    return tuple(_accuracy(runs / recipe.name, suite, recipe.steps) for recipe in recipes)


def check_disjoint(recipe: Recipe, row: ClaimRow) -> None:
    """Refuse a row whose rates would be chosen on problems that also decide."""
    texts = []
    for name in (row.development, row.measure.suite):
        suite = suite_of(recipe, name)
        assert suite.task is not None, "a row was checked before it is run"
        texts.append(
            {json.dumps(problem.prompt) for problem in suite.task.problems()[: suite.limit]}
        )
    if shared := texts[0] & texts[1]:
        raise UserError(
            f"suites {row.development!r} and {row.measure.suite!r} share {len(shared)} "
            f"problems, such as {min(shared)}; "
            "choose rates on others"
        )


def judge(
    name: str,
    row: ClaimRow,
    runs: Path,
    *,
    recipes: Mapping[str, Sequence[Recipe]],
    sweeps: Mapping[str, tuple[Swept, ...]],
    first_runs: dict[str, str],
    minutes: float,
    at_once: int,
    made: tuple[Made, ...],
) -> ClaimRecord:
    """The record of a row from its finished runs; `recipes` are those of each arm at its rate, one
    a seed.
    """
    tables = {
        arm: [_problems(runs / recipe.name, row, recipe.steps) for recipe in each]
        for arm, each in recipes.items()
    }
    asked = {problems for each in tables.values() for problems, _ in each}
    if len(asked) > 1:
        raise UserError(
            f"the arms of {name} were asked different problems in suite {row.measure.suite!r}"
        )
    scores = {arm: np.stack([score_M for _, score_M in each]) for arm, each in tables.items()}
    behind = {
        arm: _difference(row, runs, recipes, scores, arm)
        for arm in recipes
        if arm != row.difference.of
    }
    decides = behind[row.difference.minus]
    arms = tuple(
        ArmRecord(
            name=arm,
            rate=each[0].learn.lr,
            sweep=sweeps[arm],
            runs=tuple(recipe.name for recipe in each),
            scores=tuple(round(float(score), 6) for score in scores[arm].mean(1)),
            sampled_tokens=_mean(_sampled_tokens(runs / recipe.name, recipe) for recipe in each),
            trained_tokens=_mean(_trained_tokens(runs / recipe.name)[-1] for recipe in each),
            behind=behind.get(arm),
        )
        for arm, each in recipes.items()
    )
    return ClaimRecord(
        name=name,
        row=row,
        verdict=verdict(decides),
        difference=decides,
        arms=arms,
        num_problems=len(next(iter(asked))),
        steps=recipes[row.difference.of][0].steps,
        first_runs=first_runs,
        minutes=minutes,
        at_once=at_once,
        made=made,
    )


def _difference(
    row: ClaimRow,
    runs: Path,
    recipes: Mapping[str, Sequence[Recipe]],
    scores: Mapping[str, Float64[np.ndarray, "R M"]],
    arm: str,
) -> Interval:
    """The claimed arm less another one, by the row's measure."""
    of = row.difference.of
    if not isinstance(row.measure, Saving):
        return paired_difference(scores[of], scores[arm])
    return saving(*(_curves(runs, row, recipes[name]) for name in (of, arm)))


def _problems(
    run: Path, row: ClaimRow, step: int
) -> tuple[tuple[str, ...], Float64[np.ndarray, " M"]]:
    """The problems of the measured suite, and what a run scored on each after so many steps."""
    answers = every_verdict(RunDirectory(run).answers(row.measure.suite, step))
    correct_MS = np.array(list(answers.values()), dtype=bool)
    score_M = (
        pass_per_problem(correct_MS, row.measure.k)
        if isinstance(row.measure, PassAt)
        else mean_per_problem(correct_MS)
    )
    return tuple(answers), score_M


def _curves(runs: Path, row: ClaimRow, recipes: Sequence[Recipe]) -> Curves:
    """The runs of an arm at every evaluation of the measured suite."""
    score_REM, tokens_RE = [], []
    for recipe in recipes:
        run = runs / recipe.name
        steps = [step for step, suite, _ in _evaluations(run) if suite == row.measure.suite]
        score_REM.append([_problems(run, row, step)[1] for step in steps])
        tokens_RE.append([([0.0, *_trained_tokens(run)])[step] for step in steps])
    return Curves(score_REM=np.array(score_REM), tokens_RE=np.array(tokens_RE))


def _accuracy(run: Path, suite: str, step: int) -> float:
    return next(
        accuracy for done, name, accuracy in _evaluations(run) if (done, name) == (step, suite)
    )


def _evaluations(run: Path) -> list[tuple[int, str, float]]:
    """Steps, suite and accuracy of every evaluation, in order."""
    return [
        (record["step"], record["suite"], record["metrics"]["accuracy"]["value"])
        for record in RunDirectory(run).read_evaluations()
    ]


def _trained_tokens(run: Path) -> list[float]:
    """Tokens that met the loss, after each step."""
    return list(
        itertools.accumulate(step["trained_tokens"] for step in RunDirectory(run).read_metrics())
    )


def _sampled_tokens(run: Path, recipe: Recipe) -> float:
    """Response tokens that were sampled (or read, of demonstrations) in all."""
    return math.fsum(
        step["response_tokens_mean"] * recipe.learn.rollouts_per_step
        for step in RunDirectory(run).read_metrics()
    )


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return math.fsum(found) / len(found)
