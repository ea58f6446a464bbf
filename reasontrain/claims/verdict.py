"""Judgement of a row of claims: rate of each arm, held-out scores, and verdict."""

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
"""One percentage point: half-width of the interval around 0 in which differences count as none."""


@dataclass(frozen=True, kw_only=True)
class RunProvenance:
    """The provenance of runs: code and machine, the device, and versions of packages."""

    origin: Provenance
    device: str
    versions: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class SweptRate:
    """One learning rate of an arm, with its accuracy on the development suite per seed."""

    rate: float
    development: tuple[float, ...]

    @property
    def mean(self) -> float:
        """The mean accuracy over the seeds; rates are chosen by it."""
        return math.fsum(self.development) / len(self.development)


@dataclass(frozen=True, kw_only=True)
class ArmRecord:
    """The result of an arm at its rate: scores (accuracy or pass@k) per seed, and mean cost.

    `behind` is the claimed arm minus this one; None for the claimed arm itself.
    """

    name: str
    rate: float
    sweep: tuple[SweptRate, ...]
    runs: tuple[str, ...]
    scores: tuple[float, ...]
    sampled_tokens: float
    trained_tokens: float
    behind: Interval | None


@dataclass(frozen=True, kw_only=True)
class ClaimRecord:
    """A row with its verdict and its measurements.

    `minutes` is the time of the runs with `at_once` of them at a time. `first_runs` names the run
    of each arm at the first rate with the first seed; the names contain a hash, which changes with
    the recipe.
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
    provenances: tuple[RunProvenance, ...]


def verdict(difference: Interval) -> Verdict:
    """The verdict on the interval of a difference.

    *holds* if it lies above 0; else *does not hold* if it lies below 0 or within one point of it.
    """
    if difference.low > 0:
        return "holds"
    if difference.high < 0 or (difference.low >= -POINT and difference.high <= POINT):
        return "does not hold"
    return "cannot tell"


def chosen(sweep: Sequence[SweptRate]) -> float:
    """The rate with the highest mean on the development suite; of equal ones the lowest."""
    return max(sweep, key=lambda swept: (swept.mean, -swept.rate)).rate


def development(runs: Path, recipes: Sequence[Recipe], suite: str) -> tuple[float, ...]:
    """The accuracy of finished runs on a suite after their last steps."""
    return tuple(_accuracy(runs / recipe.name, suite, recipe.steps) for recipe in recipes)


def check_disjoint(recipe: Recipe, row: ClaimRow) -> None:
    """Raise UserError if the rates of a row would be chosen on problems that are also measured."""
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
            "choose rates on other problems"
        )


def judge(
    name: str,
    row: ClaimRow,
    runs: Path,
    *,
    recipes: Mapping[str, Sequence[Recipe]],
    sweeps: Mapping[str, tuple[SweptRate, ...]],
    first_runs: dict[str, str],
    minutes: float,
    at_once: int,
    provenances: tuple[RunProvenance, ...],
) -> ClaimRecord:
    """Judge a row by its finished runs.

    Args:
        name: name of the row.
        row: its settings.
        runs: folder of the runs.
        recipes: runs of each arm at its chosen rate, one per seed.
        sweeps: rates of each arm with their development accuracies.
        first_runs: name of each arm's first run.
        minutes: time of all runs.
        at_once: runs that trained at a time.
        provenances: provenances of the runs.

    Returns:
        The record of the row.

    Raises:
        UserError: the arms were evaluated on different problems.
    """
    tables = {
        arm: [_problems(runs / recipe.name, row, recipe.steps) for recipe in each]
        for arm, each in recipes.items()
    }
    problem_sets = {problems for each in tables.values() for problems, _ in each}
    if len(problem_sets) > 1:
        raise UserError(
            f"the arms of {name} were evaluated on different problems in suite "
            f"{row.measure.suite!r}"
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
        num_problems=len(next(iter(problem_sets))),
        steps=recipes[row.difference.of][0].steps,
        first_runs=first_runs,
        minutes=minutes,
        at_once=at_once,
        provenances=provenances,
    )


def _difference(
    row: ClaimRow,
    runs: Path,
    recipes: Mapping[str, Sequence[Recipe]],
    scores: Mapping[str, Float64[np.ndarray, "R M"]],
    arm: str,
) -> Interval:
    """The claimed arm minus another one, by the measure of the row."""
    of = row.difference.of
    if not isinstance(row.measure, Saving):
        return paired_difference(scores[of], scores[arm])
    return saving(*(_curves(runs, row, recipes[name]) for name in (of, arm)))


def _problems(
    run: Path, row: ClaimRow, step: int
) -> tuple[tuple[str, ...], Float64[np.ndarray, " M"]]:
    """The problems of the measured suite, and a run's score on each after `step` steps."""
    answers = every_verdict(RunDirectory(run).answers(row.measure.suite, step))
    correct_MS = np.array(list(answers.values()), dtype=bool)
    score_M = (
        pass_per_problem(correct_MS, row.measure.k)
        if isinstance(row.measure, PassAt)
        else mean_per_problem(correct_MS)
    )
    return tuple(answers), score_M


def _curves(runs: Path, row: ClaimRow, recipes: Sequence[Recipe]) -> Curves:
    """Curves of the runs of an arm over every evaluation of the measured suite."""
    score_REM = []
    tokens_RE = []
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
    """Step, suite and accuracy of every evaluation, in order."""
    return [
        (record["step"], record["suite"], record["metrics"]["accuracy"]["value"])
        for record in RunDirectory(run).read_evaluations()
    ]


def _trained_tokens(run: Path) -> list[float]:
    """Cumulative number of tokens trained on, after each step."""
    return list(
        itertools.accumulate(step["trained_tokens"] for step in RunDirectory(run).read_metrics())
    )


def _sampled_tokens(run: Path, recipe: Recipe) -> float:
    """Total number of response tokens that were sampled, or read from demonstrations."""
    return math.fsum(
        step["response_tokens_mean"] * recipe.learn.rollouts_per_step
        for step in RunDirectory(run).read_metrics()
    )


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return math.fsum(numbers) / len(numbers)
