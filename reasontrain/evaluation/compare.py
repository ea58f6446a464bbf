"""Comparison of runs: the gain of each arm over its seeds, on the same problems."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from reasontrain.data.storage import json_lines
from reasontrain.metrics.accuracy import Interval, paired_difference
from reasontrain.recipe import read_yaml
from reasontrain.run.directory import RunDirectory
from reasontrain.types import UserError

SETTINGS = {
    "version": "version",
    "num_samples": "number of samples",
    "temperature": "temperature",
    "problems_sha256": "hash of problems and prompts",
}
"""Keys of an evaluation's record that compared runs share -> words for them."""
OWN_TO_A_RUN = frozenset({"name", "seed", "out", "baseline"})


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One recipe with several seeds: accuracy before and after training, and the gain.

    The interval covers 95 %, over problems and seeds; `name` is the common start of the runs'
    names.
    """

    name: str
    num_seeds: int
    num_problems: int
    before: float
    after: float
    gain: Interval


@dataclass(frozen=True)
class _Verdicts:
    """Shares of right samples of a run on a suite, by problem, and what its records state.

    `settings` are those of the evaluation that `SETTINGS` names, as far as they are recorded.
    """

    run: Path
    settings: Mapping[str, object]
    problems: tuple[str, ...]
    before_M: Float64[np.ndarray, " M"]
    after_M: Float64[np.ndarray, " M"]


def compare(runs: Sequence[Path], suite: str) -> list[Arm]:
    """Group run directories into arms, sorted by gain, best first.

    Raises UserError if the runs were not evaluated on the same problems.
    """
    by_arm: dict[str, tuple[list[str], list[_Verdicts]]] = {}
    for run in runs:
        recipe = read_yaml(RunDirectory(run).recipe)
        names, verdicts_by_run = by_arm.setdefault(arm_of(recipe), ([], []))
        if str(recipe["name"]) in names:
            raise UserError(f"{run} is listed twice, or two runs have its name; list each once")
        names.append(str(recipe["name"]))
        verdicts_by_run.append(_verdicts(run, suite, int(str(recipe.get("steps")))))
    all_verdicts = [v for _, verdicts in by_arm.values() for v in verdicts]
    if len({v.problems for v in all_verdicts}) > 1:
        raise UserError(
            f"the runs were evaluated on different problems of suite {suite!r}; compare runs that "
            "were evaluated on the same ones"
        )
    for verdicts in all_verdicts[1:]:
        _check_settings(suite, all_verdicts[0], verdicts)
    return sorted(
        (_arm(names, verdicts) for names, verdicts in by_arm.values()),
        key=lambda arm: -arm.gain.value,
    )


def arm_of(recipe: Mapping[str, object]) -> str:
    """A key of a recipe that is equal for runs that differ only in name, seed and directory."""
    return json.dumps(
        {key: value for key, value in recipe.items() if key not in OWN_TO_A_RUN}, sort_keys=True
    )


def markdown(arms: Sequence[Arm]) -> str:
    """Format the arms as a Markdown table, in percent."""
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
    """The longest common start of the names."""
    shortest = min(names, key=len)
    length = next(
        (i for i in range(len(shortest)) if len({name[i] for name in names}) > 1), len(shortest)
    )
    return shortest[:length].rstrip("-_.") or shortest


def _verdicts(run: Path, suite: str, steps: int) -> _Verdicts:
    """Read the verdicts before the first step and after the last; all samples count."""
    paths = [RunDirectory(run).answers(suite, step) for step in (0, steps)]
    if not all(path.exists() for path in paths):
        raise UserError(
            f"{run} was not evaluated on suite {suite!r} both before training and after its "
            f"{steps} steps; check that it is finished, and that the suite's name is right"
        )
    first, last = (every_verdict(path) for path in paths)
    if first.keys() != last.keys():
        raise UserError(
            f"{run} was evaluated on other problems of suite {suite!r} after training than "
            f"before, so its gain is unknown"
        )
    problems = tuple(first)
    return _Verdicts(
        run,
        _settings(run, suite),
        problems,
        *(np.array([np.mean(answers[p]) for p in problems]) for answers in (first, last)),
    )


def _settings(run: Path, suite: str) -> dict[str, object]:
    """The recorded settings of a run's evaluation on a suite."""
    path = RunDirectory(run).evaluations
    records = [record for record, _ in json_lines(path)] if path.is_file() else []
    own = [record for record in records if record.get("suite") == suite]
    return {key: own[-1][key] for key in SETTINGS if key in own[-1]} if own else {}


def _check_settings(suite: str, one: _Verdicts, other: _Verdicts) -> None:
    """Refuse runs that were evaluated on equal ids of other problems, or in another way."""
    for key, words in SETTINGS.items():
        if key in one.settings and key in other.settings:
            values = (one.settings[key], other.settings[key])
            if values[0] != values[1]:
                raise UserError(
                    f"suite {suite!r} cannot be compared: its {words} is {values[0]!r} for "
                    f"{one.run} and {values[1]!r} for {other.run}"
                )


def verdicts(path: Path) -> dict[str, bool]:
    """Read the verdict on the first answer to each problem, by problem id, from an answer log."""
    return {problem: answers[0] for problem, answers in every_verdict(path).items()}


def every_verdict(path: Path) -> dict[str, list[bool]]:
    """Read the verdicts on all answers to each problem, in the order of their samples."""
    by_problem: dict[str, list[bool]] = {}
    with path.open(encoding="utf-8") as stream:
        # not str.splitlines: responses contain Unicode separators that it would split at
        for line in stream:
            answer = json.loads(line)
            by_problem.setdefault(answer["problem"], []).append(answer["correct"])
    return by_problem
