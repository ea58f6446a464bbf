"""Settings of a table of claims.

A row has a paper's claim, the runs that test it, and the difference that decides it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import yaml
from annotated_types import MinLen
from pydantic import Field

from reasontrain.recipe.constraints import Name, Seed
from reasontrain.recipe.read import as_mapping, build, read_recipe
from reasontrain.recipe.run_settings import EvaluateSettings, Suite
from reasontrain.recipe.settings import Recipe, RecipeError
from reasontrain.recipe.yaml_text import read_yaml
from reasontrain.types import AtLeastOne, Positive, UserError, did_you_mean

OWN = ("name", "seed", "out", "baseline", "evaluate", "learn.lr")
"""Keys that only the table sets, to the same value for every arm."""
SAME = ("steps", "learn.rollouts_per_step", "sample.group_size", "sample.max_tokens")
"""Keys that determine the number of steps and of sampled tokens: one value for all arms."""


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """The share of right answers to a suite after the last step, over all its samples."""

    kind: Literal["accuracy"] = "accuracy"
    suite: Name


@dataclass(frozen=True, kw_only=True)
class PassAt:
    """The probability that one of `k` samples of a problem is right, after the last step."""

    kind: Literal["pass"] = "pass"
    suite: Name
    k: AtLeastOne


@dataclass(frozen=True, kw_only=True)
class Saving:
    """The share of trained tokens that an arm saves until an accuracy that both arms reach.

    See `claims.saving`.
    """

    kind: Literal["saving"] = "saving"
    suite: Name


@dataclass(frozen=True, kw_only=True)
class ArmSettings:
    """The changes of an arm to its recipe, as `key.path: value`.

    `recipe` replaces the recipe of the row.
    """

    recipe: str | None = None
    set: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class MeasuredDifference:
    """The arm that is claimed to be better, and the arm that it is compared with."""

    of: Name
    minus: Name


@dataclass(frozen=True, kw_only=True)
class ClaimRow:
    """A claim and the runs that test it: every arm at every rate with every seed.

    Paths of recipes are relative to the table. `set` applies to all arms, and `evaluate` replaces
    that of their recipes. The suite `development` chooses the rate of an arm by the accuracy after
    its last step, mean over the seeds; `measure` then compares the arms on other problems. The arms
    of `equal_mass` must keep the same share of the tokens.
    """

    paper: str
    claim: str
    recipe: str
    set: dict[str, object] = field(default_factory=dict)
    arms: Annotated[dict[Name, ArmSettings], MinLen(2)]
    difference: MeasuredDifference
    equal_mass: tuple[Name, ...] = ()
    rates: Annotated[tuple[Positive, ...], MinLen(1)]
    seeds: Annotated[tuple[Seed, ...], MinLen(3)]
    evaluate: EvaluateSettings | None = None
    development: Name
    measure: Annotated[Accuracy | PassAt | Saving, Field(discriminator="kind")]


@dataclass(frozen=True, kw_only=True)
class Claims:
    """A table of claims: rows by name."""

    rows: Annotated[dict[Name, ClaimRow], MinLen(1)]


def read_claims(path: Path, names: Sequence[str] = ()) -> dict[str, ClaimRow]:
    """The named rows of a table (default: all); raise RecipeError with all errors at once."""
    rows = build(Claims, read_yaml(path), str(path)).rows
    for name in names:
        if name not in rows:
            raise UserError(f"{path} has no row {_unknown(name, rows)}")
    chosen = {name: rows[name] for name in names or rows}
    faults = [
        f"{name}: {fault}" for name, row in chosen.items() for fault in row_faults(path.parent, row)
    ]
    if faults:
        raise RecipeError(
            "\n".join([f"{path} cannot be tested:", *(f"  {fault}" for fault in faults)])
        )
    return chosen


def run_of(folder: Path, row: ClaimRow, arm: str, *, rate: float, seed: int, out: str) -> Recipe:
    """The run of one arm at one rate with one seed.

    Args:
        folder: folder of the table; recipe paths are relative to it.
        row: the row of the table.
        arm: name of the arm.
        rate: learning rate.
        seed: training seed.
        out: folder of runs.

    Returns:
        The recipe. Its name contains a hash of all settings, so that equal runs are one run.
    """
    settings = row.arms[arm]
    recipe = read_recipe(
        folder / (settings.recipe or row.recipe), [*_overrides(row.set), *_overrides(settings.set)]
    )
    recipe = replace(
        recipe,
        learn=replace(recipe.learn, lr=rate),
        seed=seed,
        baseline=None,
        evaluate=row.evaluate or recipe.evaluate,
    )
    digest = hashlib.sha256(
        repr(_non_defaults(replace(recipe, name="-", out="-"))).encode()
    ).hexdigest()[:10]
    return replace(recipe, name=f"{recipe.name}-{digest}", out=out)


HASHED_AS = {"WeightsTeacher": "ModelSettings"}
"""Class of settings -> the class that it extends by settings with defaults, which take no part in a
hash: a record names its runs by their hashes."""


def _non_defaults(settings: object) -> object:
    """Settings that differ from their defaults.

    Defaults are left out so that a new setting does not change existing hashes.
    """
    if isinstance(settings, tuple):
        return tuple(map(_non_defaults, settings))
    if not dataclasses.is_dataclass(settings) or isinstance(settings, type):
        return settings
    parts = [HASHED_AS.get(type(settings).__name__, type(settings).__name__)]
    for setting in dataclasses.fields(settings):
        value = getattr(settings, setting.name)
        default = (
            setting.default_factory()
            if setting.default_factory is not dataclasses.MISSING
            else setting.default
        )
        if value != default:
            parts.append(f"{setting.name}={_non_defaults(value)!r}")
    return parts


def suite_of(recipe: Recipe, name: str) -> Suite:
    """The suite of this name in a recipe, which must have it."""
    assert recipe.evaluate is not None, "a row was checked before it is run"
    return next(suite for suite in recipe.evaluate.suites if suite.name == name)


def row_faults(folder: Path, row: ClaimRow) -> Iterator[str]:
    """Errors that make a row untestable or unfair, one sentence each."""
    faults = [*_name_faults(row), *_set_faults(row)]
    yield from faults
    if faults:
        return  # the checks below would report the same mistakes again
    try:
        arms = {
            arm: run_of(folder, row, arm, rate=row.rates[0], seed=row.seeds[0], out="out")
            for arm in row.arms
        }
    except UserError as error:
        yield str(error)
        return
    yield from _same_faults(arms)
    yield from _mass_faults(arms, row.equal_mass)
    for arm, recipe in arms.items():
        yield from _suite_faults(arm, recipe, row)


def _name_faults(row: ClaimRow) -> Iterator[str]:
    """Names of arms that do not exist, and values that are repeated."""
    named = {
        "difference.of": (row.difference.of,),
        "difference.minus": (row.difference.minus,),
        "equal_mass": row.equal_mass,
    }
    for key, names in named.items():
        yield from (
            f"{key}: there is no arm {_unknown(name, row.arms)}"
            for name in names
            if name not in row.arms
        )
    if row.difference.of == row.difference.minus:
        yield f"difference: an arm is compared with itself, {row.difference.of!r}"
    for key, values in (("rates", row.rates), ("seeds", row.seeds)):
        if len(set(values)) < len(values):
            yield (
                f"{key}: one of {', '.join(f'{value:g}' for value in values)} is repeated; "
                f"each value counts once"
            )


def _set_faults(row: ClaimRow) -> Iterator[str]:
    """Keys that only the table may set."""
    by_place = {"set": row.set, **{f"arms.{name}.set": arm.set for name, arm in row.arms.items()}}
    for where, settings in by_place.items():
        for key in settings:
            if key in OWN or key == "learn":
                yield (
                    f"{where}: {key} must be the same for every arm; set it in the row itself "
                    f"(`rates`, `seeds`, `evaluate`)"
                )


def _same_faults(arms: Mapping[str, Recipe]) -> Iterator[str]:
    """Arms that differ in steps or sampled tokens."""
    for key in SAME:
        values = {arm: _at(as_mapping(recipe), key) for arm, recipe in arms.items()}
        if len(set(map(str, values.values()))) > 1:
            shown = ", ".join(f"{arm} {value}" for arm, value in values.items())
            yield f"{key}: all arms must spend the same, found {shown}"


def _mass_faults(arms: Mapping[str, Recipe], equal: Sequence[str]) -> Iterator[str]:
    """Arms of `equal` that keep different shares of the tokens."""
    masses = {arm: _mass(as_mapping(arms[arm])["token_selection"]) for arm in equal}
    if len(set(masses.values())) > 1:
        yield "equal_mass: these arms must keep the same share of the tokens, found " + ", ".join(
            f"{arm} {mass}" for arm, mass in masses.items()
        )


def _mass(token_selection: object) -> str:
    """The share of tokens that a rule keeps, as text.

    A rule without `keep_ratio` is represented by its settings. Shuffled weights keep as many tokens
    as the rule that they shuffle.
    """
    match token_selection:
        case {"kind": "shuffled", "of": of}:
            return _mass(of)
        case {"kind": "all"}:
            return "1"
        case {"keep_ratio": int() | float() as keep}:
            return f"{keep:g}"
        case _:
            return f"that of {json.dumps(token_selection, sort_keys=True)}"


def _suite_faults(arm: str, recipe: Recipe, row: ClaimRow) -> Iterator[str]:
    """Suites that an arm lacks, or that do not fit the measure."""
    suites = {suite.name: suite for suite in recipe.evaluate.suites} if recipe.evaluate else {}
    for key, name in {"development": row.development, "measure.suite": row.measure.suite}.items():
        if name not in suites:
            yield f"{key}: the recipe of arm {arm!r} has no suite {_unknown(name, suites)}"
        elif suites[name].task is None:
            yield (
                f"{key}: suite {name!r} names no `task`; it must, so that its problems can be "
                f"compared with those of the other suite"
            )
    if row.development == row.measure.suite:
        yield "development: choose rates on a suite other than the measured one"
    measured = suites.get(row.measure.suite)
    if isinstance(row.measure, PassAt) and measured and row.measure.k > measured.num_samples:
        yield (
            f"measure.k: {row.measure.k} needs as many samples, and num_samples of "
            f"{measured.name} is {measured.num_samples}"
        )
    if (
        isinstance(row.measure, Saving)
        and recipe.evaluate
        and not (recipe.evaluate.every and recipe.evaluate.before)
    ):
        yield (
            "measure: a saving is read from a curve; set `evaluate.every`, and "
            "`evaluate.before: true`"
        )


def _unknown(name: str, known: Mapping[str, object]) -> str:
    """An unknown name, with a suggestion or the list of known names."""
    return f"{name!r}" + (did_you_mean(name, known) or f"; there is {', '.join(known) or 'none'}")


def _overrides(settings: Mapping[str, object]) -> list[str]:
    """Convert settings to `key.path=value` overrides."""
    return [f"{key}={_flow(value)}" for key, value in settings.items()]


def _flow(value: object) -> str:
    """Format a value as YAML on one line."""
    return (
        yaml.safe_dump(value, default_flow_style=True, width=1 << 20).removesuffix("...\n").strip()
    )


def _at(content: object, key: str) -> object:
    """The value at a dotted key; None if a part of the key is missing."""
    for part in key.split("."):
        content = content.get(part) if isinstance(content, dict) else None
    return content
