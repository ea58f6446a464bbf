"""Runs set beside each other: what each arm gained, over its seeds and over the same problems."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from reasontrain.metrics.accuracy import Interval, paired_difference
from reasontrain.recipe import read_yaml
from reasontrain.run.directory import RunDirectory
from reasontrain.types import UserError

OWN_TO_A_RUN = frozenset({"name", "seed", "out", "baseline"})


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One recipe with several seeds: shares of right answers before and after, and what was gained.

    The interval covers 95 %, over problems and seeds; `name` is what the names of the runs have in
    common.
    """

    name: str
    num_seeds: int
    num_problems: int
    before: float
    after: float
    gain: Interval


@dataclass(frozen=True)
class _Verdicts:
    """One run's first and last answers to a suite, a row per problem."""

    problems: tuple[str, ...]
    before_M: Bool[np.ndarray, " M"]
    after_M: Bool[np.ndarray, " M"]


def compare(runs: Sequence[Path], suite: str) -> list[Arm]:
    """The arms that these run directories make up, best first; raises UserError where they were not
    asked the same problems.
    """
    by_arm: dict[str, tuple[list[str], list[_Verdicts]]] = {}
    for run in runs:
        recipe = read_yaml(RunDirectory(run).recipe)
        names, found = by_arm.setdefault(arm_of(recipe), ([], []))
        if str(recipe["name"]) in names:
            raise UserError(f"{run} is given twice, or another run has its name; a run counts once")
        names.append(str(recipe["name"]))
        found.append(_verdicts(run, suite, int(str(recipe.get("steps")))))
    everyone = [v for _, verdicts in by_arm.values() for v in verdicts]
    if len({v.problems for v in everyone}) > 1:
        raise UserError(
            f"the runs were asked different problems in suite {suite!r}; compare runs of one suite"
        )
    return sorted(
        (_arm(names, verdicts) for names, verdicts in by_arm.values()),
        key=lambda arm: -arm.gain.value,
    )


def arm_of(recipe: Mapping[str, object]) -> str:
    """What a recipe says apart from what every run has of its own: equal for runs that differ by
    their seed alone.
    """
    return json.dumps(
        {key: value for key, value in recipe.items() if key not in OWN_TO_A_RUN}, sort_keys=True
    )


def markdown(arms: Sequence[Arm]) -> str:
    """A table for a README; figures in percent."""
    rows = [
        "| arm | seeds | before | after | gain [95 % interval] |",
        "| --- | --- | --- | --- | --- |",
    ]
    for arm in arms:
        gain = (
            f"{100 * arm.gain.value:+.1f} [{100 * arm.gain.low:+.1f}, {100 * arm.gain.high:+.1f}]"
        )
        rows.append(
            f"| {arm.name} | {arm.num_seeds} | {100 * arm.before:.1f} | "
            f"{100 * arm.after:.1f} | {gain} |"
        )
    return "\n".join(rows)


def _arm(names: Sequence[str], verdicts: Sequence[_Verdicts]) -> Arm:
    before_RM, after_RM = (
        np.stack(rows).astype(float)
        for rows in ([v.before_M for v in verdicts], [v.after_M for v in verdicts])
    )
    return Arm(
        name=common(names),
        num_seeds=len(names),
        num_problems=len(verdicts[0].problems),
        before=float(before_RM.mean()),
        after=float(after_RM.mean()),
        gain=paired_difference(after_RM, before_RM),
    )


def common(names: Sequence[str]) -> str:
    """What the names begin with, all of them."""
    shortest = min(names, key=len)
    length = next(
        (i for i in range(len(shortest)) if len({name[i] for name in names}) > 1), len(shortest)
    )
    return shortest[:length].rstrip("-_.") or shortest


def _verdicts(run: Path, suite: str, steps: int) -> _Verdicts:
    """The verdicts before the first step and after the last; a problem with several answers counts
    by the first.
    """
    paths = [RunDirectory(run).answers(suite, step) for step in (0, steps)]
    if not all(path.exists() for path in paths):
        raise UserError(
            f"{run} was not evaluated on suite {suite!r} both before training and after "
            f"its {steps} steps; is it finished, "
            "and is the name right?"
        )
    first, last = (verdicts(path) for path in paths)
    if first.keys() != last.keys():
        raise UserError(
            f"{run} was asked other problems of suite {suite!r} after training than "
            f"before; its gain cannot be told"
        )
    problems = tuple(first)
    return _Verdicts(
        problems,
        *(np.array([answers[p] for p in problems], dtype=bool) for answers in (first, last)),
    )


def verdicts(path: Path) -> dict[str, bool]:
    """Problem -> whether its first answer is right, from a file of answers."""
    return {problem: answers[0] for problem, answers in every_verdict(path).items()}


def every_verdict(path: Path) -> dict[str, list[bool]]:
    """Problem -> whether each of its answers is right, in the order in which they were sampled."""
    found: dict[str, list[bool]] = {}
    with path.open(
        encoding="utf-8"
    ) as stream:  # by lines of the file: a response may hold separators of its own
        for line in stream:
            answer = json.loads(line)
            found.setdefault(answer["problem"], []).append(answer["correct"])
    return found
