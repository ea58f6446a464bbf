"""Comparison of runs: gains of each arm over its seeds, and differences between arms."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
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
WITHOUT_EFFECT = frozenset({"workers", "timeout_s"})
"""Settings of an environment that change no answer of one that answers in time."""
OWN_TO_A_RUN = frozenset({"name", "seed", "out", "baseline"})


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One recipe with several seeds: accuracy before and after training, and the gain.

    Attributes:
        name: the common start of the runs' names.
        num_seeds: the number of runs.
        before: accuracy before the first step.
        after: accuracy after the last step.
        gain: `after` minus `before`, with an interval of 95 % over problems and seeds.
        difference: `after` minus that of the baseline, with such an interval; None for the
            baseline.
    """

    name: str
    num_seeds: int
    before: float
    after: float
    gain: Interval
    difference: Interval | None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The arms on a suite, by accuracy after training, best first; `baseline` names one of them."""

    suite: str
    num_problems: int
    baseline: str
    arms: tuple[Arm, ...]


@dataclass(frozen=True)
class _Verdicts:
    """Shares of right samples of a run on a suite, by problem, and what its records state.

    `settings` are those of the evaluation that `SETTINGS` names, as far as they are recorded, and
    `sampling` those of the suite's answers.
    """

    run: Path
    settings: Mapping[str, object]
    sampling: Mapping[str, object]
    problems: tuple[str, ...]
    before_M: Float64[np.ndarray, " M"]
    after_M: Float64[np.ndarray, " M"]


def compare(runs: Sequence[Path], suite: str) -> Comparison:
    """Group run directories into arms and compare each with the first run's, the baseline.

    Both arms answered the same problems, so gains and differences are paired: a bootstrap draws
    problems once for both sides, and the seeds of each arm apart (see
    `metrics.accuracy.paired_difference`, which gives the sources). A score of a problem is the
    share of its samples that are right. Intervals cover 95 % each; with many arms, some will
    exclude 0 by chance.

    Args:
        runs: run directories; runs that differ in seed and name only form an arm.
        suite: the suite, by name.

    Raises:
        UserError: the runs were not evaluated on the same problems in the same way.
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
    baseline_names, baseline = next(iter(by_arm.values()))
    arms = [
        _arm(names, verdicts, None if verdicts is baseline else baseline)
        for names, verdicts in by_arm.values()
    ]
    return Comparison(
        suite=suite,
        num_problems=len(baseline[0].problems),
        baseline=common(baseline_names),
        arms=tuple(sorted(arms, key=lambda arm: -arm.after)),
    )


def common_suites(runs: Sequence[Path]) -> list[str]:
    """The suites on which all runs were evaluated, in the order of the first run.

    Raises UserError if there is none.
    """
    suites_by_run = [_evaluated_suites(run) for run in runs]
    shared = [suite for suite in suites_by_run[0] if all(suite in each for each in suites_by_run)]
    if not shared:
        listed = "; ".join(
            f"{run}: {', '.join(suites) or 'none'}"
            for run, suites in zip(runs, suites_by_run, strict=True)
        )
        raise UserError(f"the runs were evaluated on no suite in common ({listed})")
    return shared


def _evaluated_suites(run: Path) -> list[str]:
    """The suites of a run; raises UserError if the directory holds none."""
    read_yaml(RunDirectory(run).recipe)
    path = RunDirectory(run).evaluations
    records = [record for record, _ in json_lines(path)] if path.is_file() else []
    return list(dict.fromkeys(str(record.get("suite")) for record in records))


def arm_of(recipe: Mapping[str, object]) -> str:
    """A key of a recipe that is equal for runs that differ only in name, seed and directory."""
    return json.dumps(
        {key: value for key, value in recipe.items() if key not in OWN_TO_A_RUN}, sort_keys=True
    )


def markdown(comparisons: Sequence[Comparison]) -> str:
    """Format comparisons as Markdown tables, in percent."""
    return "\n\n".join(_table(comparison) for comparison in comparisons)


def as_json(comparisons: Sequence[Comparison]) -> str:
    """Format comparisons as a JSON list of their fields, with accuracies from 0 to 1."""
    return json.dumps([asdict(comparison) for comparison in comparisons], indent=2)


def _table(comparison: Comparison) -> str:
    rows = [
        f"Suite {comparison.suite}, {comparison.num_problems:,} problems:",
        "",
        "| arm | seeds | before | after | gain [95 % interval] | difference from "
        f"{comparison.baseline} [95 % interval] |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for arm in comparison.arms:
        difference = "" if arm.difference is None else _in_points(arm.difference)
        rows.append(
            f"| {arm.name} | {arm.num_seeds} | {100 * arm.before:.1f} | {100 * arm.after:.1f} | "
            f"{_in_points(arm.gain)} | {difference} |"
        )
    return "\n".join(rows)


def _in_points(interval: Interval) -> str:
    """A difference in percentage points, with its interval."""
    value, low, high = (100 * number for number in (interval.value, interval.low, interval.high))
    return f"{value:+.1f} [{low:+.1f}, {high:+.1f}]"


def _arm(
    names: Sequence[str], verdicts: Sequence[_Verdicts], baseline: Sequence[_Verdicts] | None
) -> Arm:
    before_RM, after_RM = (
        np.stack(rows).astype(float)
        for rows in ([v.before_M for v in verdicts], [v.after_M for v in verdicts])
    )
    return Arm(
        name=common(names),
        num_seeds=len(names),
        before=float(before_RM.mean()),
        after=float(after_RM.mean()),
        gain=paired_difference(after_RM, before_RM),
        difference=None
        if baseline is None
        else paired_difference(after_RM, np.stack([v.after_M for v in baseline])),
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
        sampling_of(read_yaml(RunDirectory(run).recipe), suite),
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
    if (name := differing(one.sampling, other.sampling)) is not None:
        raise UserError(
            f"suite {suite!r} cannot be compared: `sampling.{name}` differs between {one.run} and "
            f"{other.run}"
        )


def sampling_of(recipe: Mapping[str, object], suite: str) -> Mapping[str, object]:
    """The settings of a suite's answers in a run's recipe; empty if it has none."""
    evaluate = recipe.get("evaluate")
    suites = evaluate.get("suites") if isinstance(evaluate, Mapping) else None
    for each in suites if isinstance(suites, list) else ():
        if isinstance(each, Mapping) and each.get("name") == suite:
            sampling = each.get("sampling")
            return sampling if isinstance(sampling, Mapping) else {}
    return {}


def differing(one: Mapping[str, object], other: Mapping[str, object]) -> str | None:
    """The first setting of two samplings that differs, by its key; None if none does.

    A section that one of them does not state is null there. Another setting is not compared then.
    """
    for name in dict.fromkeys([*one, *other]):
        values = [one.get(name), other.get(name)]
        is_section = any(isinstance(value, Mapping) for value in values)
        if is_section or (name in one and name in other):
            first, second = (_with_effect(value) for value in values)
            if first != second:
                return name
    return None


def _with_effect(value: object) -> object:
    """A setting without the parts that change no answer."""
    if not isinstance(value, Mapping):
        return value
    return {key: part for key, part in value.items() if key not in WITHOUT_EFFECT}


def paired_accuracy(after: Path, before: Path) -> Interval | None:
    """Mean accuracy in one file of answers minus that in another, paired by problem.

    The interval covers 95 % over problems. Returns None if a file is missing or if the files hold
    different problems.
    """
    if not (after.is_file() and before.is_file()):
        return None
    after_verdicts = every_verdict(after)
    before_verdicts = every_verdict(before)
    if after_verdicts.keys() != before_verdicts.keys():
        return None
    after_1M, before_1M = (
        np.array([[np.mean(verdicts[problem]) for problem in after_verdicts]])
        for verdicts in (after_verdicts, before_verdicts)
    )
    return paired_difference(after_1M, before_1M)


def every_verdict(path: Path) -> dict[str, list[bool]]:
    """Read the verdicts on all answers to each problem, in the order of their samples."""
    by_problem: dict[str, list[bool]] = {}
    with path.open(encoding="utf-8") as stream:
        # not str.splitlines: responses contain Unicode separators that it would split at
        for line in stream:
            answer = json.loads(line)
            by_problem.setdefault(answer["problem"], []).append(answer["correct"])
    return by_problem
