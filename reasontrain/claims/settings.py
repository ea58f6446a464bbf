"""What a table of claims can say: for each row a paper's claim, the runs that test it, and the
difference that decides it.
"""

from __future__ import annotations

import dataclasses
import difflib
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
from reasontrain.recipe.read import as_mapping, build, read_recipe, read_yaml
from reasontrain.recipe.run_settings import EvaluateSettings, Suite
from reasontrain.recipe.settings import Recipe, RecipeError
from reasontrain.types import AtLeastOne, Positive, UserError

OWN = ("name", "seed", "out", "baseline", "evaluate", "learn.lr")
"""Keys that the table itself sets, so that every arm gets the same."""
SAME = ("steps", "learn.rollouts_per_step", "sample.group_size", "sample.max_tokens")
"""Keys that decide how many steps are taken and how many tokens are sampled: one value for all
arms.
"""


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """Share of right answers to a suite after the last step, over all its samples."""

    kind: Literal["accuracy"] = "accuracy"
    suite: Name


@dataclass(frozen=True, kw_only=True)
class PassAt:
    """Chance that one of `k` samples of a problem is right, after the last step."""

    kind: Literal["pass"] = "pass"
    suite: Name
    k: AtLeastOne


@dataclass(frozen=True, kw_only=True)
class Saving:
    """Share of the trained tokens that one arm saves on its way to an accuracy that both reach
    (`evaluation.saving`).
    """

    kind: Literal["saving"] = "saving"
    suite: Name


@dataclass(frozen=True, kw_only=True)
class ArmSettings:
    """What an arm changes in its recipe, by `key.path: value`; `recipe` where it is not the row's."""

    recipe: str | None = None
    set: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class MeasuredDifference:
    """The arm that is claimed to be the better one, and the arm that it is compared with."""

    of: Name
    minus: Name


@dataclass(frozen=True, kw_only=True)
class ClaimRow:
    """A claim in words and the runs that test it: every arm at every learning rate of `rates` with
    every seed.

    Recipes are looked for beside the table. `set` holds for all arms, and `evaluate` replaces what
    their recipes ask. The suite `development` chooses the rate of an arm by the accuracy after its
    last step, mean over the seeds; `measure` then compares the arms on other problems. The arms of
    `equal_mass` must keep the same share of the tokens.
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
    """The rows of a table (those named, or all), or one error that lists everything wrong with
    them.
    """
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
            "\n".join(
                [f"{path} cannot be tested as it stands:", *(f"  {fault}" for fault in faults)]
            )
        )
    return chosen


def run_of(folder: Path, row: ClaimRow, arm: str, *, rate: float, seed: int, out: str) -> Recipe:
    """The run of one arm at one rate with one seed.

    Its name holds a hash of all that decides it, so equal runs are one run.
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
    digest = hashlib.sha256(repr(_said(replace(recipe, name="-", out="-"))).encode()).hexdigest()[
        :10
    ]
    return replace(recipe, name=f"{recipe.name}-{digest}", out=out)


def _said(settings: object) -> object:
    """What settings say beyond their defaults, so that a setting that is new leaves what was said
    before as it was.
    """
    if isinstance(settings, tuple):
        return tuple(map(_said, settings))
    if not dataclasses.is_dataclass(settings) or isinstance(settings, type):
        return settings
    said = [type(settings).__name__]
    for knob in dataclasses.fields(settings):
        value = getattr(settings, knob.name)
        default = (
            knob.default_factory()
            if knob.default_factory is not dataclasses.MISSING
            else knob.default
        )
        if value != default:
            said.append(f"{knob.name}={_said(value)!r}")
    return said


def suite_of(recipe: Recipe, name: str) -> Suite:
    """One suite of a recipe that has it."""
    assert recipe.evaluate is not None, "a row was checked before it is run"
    return next(suite for suite in recipe.evaluate.suites if suite.name == name)


def row_faults(folder: Path, row: ClaimRow) -> Iterator[str]:
    """Everything that makes a row untestable or unfair, one sentence each."""
    faults = [*_name_faults(row), *_set_faults(row)]
    yield from faults
    if faults:
        return  # what follows would speak of the same mistakes
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
    """Arms that are not there, and what is given twice."""
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
                f"{key}: one of {', '.join(f'{value:g}' for value in values)} is given twice; "
                f"each counts once"
            )


def _set_faults(row: ClaimRow) -> Iterator[str]:
    """Keys that are the table's own."""
    by_place = {"set": row.set, **{f"arms.{name}.set": arm.set for name, arm in row.arms.items()}}
    for where, settings in by_place.items():
        for key in settings:
            if key in OWN or key == "learn":
                yield (
                    f"{where}: {key} is the same for every arm and is set by the row itself "
                    f"(`rates`, `seeds`, `evaluate`)"
                )


def _same_faults(arms: Mapping[str, Recipe]) -> Iterator[str]:
    """Arms that do not take as many steps on as many tokens."""
    for key in SAME:
        found = {arm: _at(as_mapping(recipe), key) for arm, recipe in arms.items()}
        if len(set(map(str, found.values()))) > 1:
            shown = ", ".join(f"{arm} {value}" for arm, value in found.items())
            yield f"{key}: all arms must spend the same, found {shown}"


def _mass_faults(arms: Mapping[str, Recipe], equal: Sequence[str]) -> Iterator[str]:
    """Arms that keep another share of the tokens where the same was stated."""
    found = {arm: _mass(as_mapping(arms[arm])["token_selection"]) for arm in equal}
    if len(set(found.values())) > 1:
        yield "equal_mass: these arms must keep the same share of the tokens, found " + ", ".join(
            f"{arm} {mass}" for arm, mass in found.items()
        )


def _mass(token_selection: object) -> str:
    """The share of the tokens that a rule keeps; a rule that states none is its own measure.

    Shuffled weights are as many.
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
    """Suites that an arm is not asked, or cannot answer in the way that the measure needs."""
    suites = {suite.name: suite for suite in recipe.evaluate.suites} if recipe.evaluate else {}
    for key, name in {"development": row.development, "measure.suite": row.measure.suite}.items():
        if name not in suites:
            yield f"{key}: the recipe of arm {arm!r} has no suite {_unknown(name, suites)}"
        elif suites[name].task is None:
            yield (
                f"{key}: suite {name!r} names no `task`, so nobody can see that its problems "
                f"are others"
            )
    if row.development == row.measure.suite:
        yield "development: the rate must be chosen on other problems than those that decide"
    found = suites.get(row.measure.suite)
    if isinstance(row.measure, PassAt) and found and row.measure.k > found.num_samples:
        yield (
            f"measure.k: {row.measure.k} needs as many samples, and num_samples of "
            f"{found.name} is {found.num_samples}"
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
    """A name that is not there, with what is."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"{name!r}; " + (
        f"did you mean `{near[0]}`?" if near else f"there is {', '.join(known) or 'none'}"
    )


def _overrides(settings: Mapping[str, object]) -> list[str]:
    """`key.path=value` for each of these settings."""
    return [f"{key}={_flow(value)}" for key, value in settings.items()]


def _flow(value: object) -> str:
    """A value as YAML on one line."""
    return (
        yaml.safe_dump(value, default_flow_style=True, width=1 << 20).removesuffix("...\n").strip()
    )


def _at(content: object, key: str) -> object:
    """The value at a dotted key; None where a section on the way is left out."""
    for part in key.split("."):
        content = content.get(part) if isinstance(content, dict) else None
    return content
