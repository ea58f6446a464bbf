"""Schedules that span a run's steps, and what happens to them when `steps` changes on resume."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

from reasontrain.algo.keep_ratio_schedule import LinearSchedule
from reasontrain.algo.token_selection import ShuffledWeights, SsToken
from reasontrain.learner.optimizer import rate
from reasontrain.recipe import Recipe, YamlValue
from reasontrain.run.directory import RunDirectory
from reasontrain.types import UserError


def check_schedules(
    directory: RunDirectory, before: Mapping[str, YamlValue], recipe: Recipe
) -> None:
    """Raise UserError if a schedule jumps because `steps` changed, and nobody chose that.

    Args:
        directory: the run directory.
        before: the recipe that the run was trained with.
        recipe: the recipe that it is resumed with.
    """
    checkpoints = directory.checkpoint_directories()
    span = recorded_span(before)
    if not checkpoints or span == recipe.schedule_steps or "schedule" in recipe.resume.accept:
        return
    done = checkpoints[0][0]
    jumps = list(_jumps(recipe, done, span))
    if jumps:
        raise UserError(
            f"{directory} was trained for {done} steps with schedules over {span} steps, and now "
            f"they span {recipe.schedule_steps}: {'; '.join(jumps)}. Keep the schedules with "
            f"learn.schedule_steps={span}, or accept the new ones with resume.accept=[schedule]"
        )


def recorded_span(recipe: Mapping[str, YamlValue]) -> int:
    """The steps that schedules span in a recipe that was written to a run directory."""
    learn = recipe.get("learn")
    own = learn.get("schedule_steps") if isinstance(learn, dict) else None
    span = own if own is not None else recipe.get("steps")
    assert isinstance(span, int), "a resolved recipe has `steps`"
    return span


def _jumps(recipe: Recipe, done: int, span: int) -> Iterator[str]:
    """The values of each schedule that jumps between the last step done and the next."""
    last = _values(recipe, done - 1, span)
    left = range(done, recipe.steps)
    old = [_values(recipe, step, span) for step in left]
    new = [_values(recipe, step, recipe.schedule_steps) for step in left]
    for name, value in last.items():
        if any(a[name] != b[name] for a, b in zip(old, new, strict=True)):
            first = new[0][name]
            final = new[-1][name]
            yield (
                f"{name} was {value:.4g} at step {done} and would {_course(first, final, done + 1)}"
                f"; with the old schedule it would "
                f"{_course(old[0][name], old[-1][name], done + 1)}"
            )


def _course(first: float, final: float, step: int) -> str:
    """The course of a value from a step, counted from 1, to the end, after "would"."""
    if f"{first:.4g}" == f"{final:.4g}":
        return f"be {first:.4g} from step {step} to the end"
    return f"go from {first:.4g} at step {step} to {final:.4g} at the end"


def _values(recipe: Recipe, step: int, span: int) -> dict[str, float]:
    """The values of what spans the steps of schedules, at the step with this index, from 0."""
    updates = recipe.learn.updates_per_batch
    progress = min(step / max(span - 1, 1), 1.0)
    rule = recipe.token_selection
    while isinstance(rule, ShuffledWeights):
        rule = rule.of
    values = {
        "the learning rate": recipe.learn.lr * rate(recipe.learn, step * updates, span * updates),
        **_ratios("token_selection", recipe.token_selection, progress),
        **_ratios("rollout_filter", recipe.rollout_filter, progress),
    }
    if isinstance(rule, SsToken):
        values["token_selection.gamma"] = rule.gamma if progress >= rule.warmup else 0.0
    return values


def _ratios(prefix: str, settings: object, progress: float) -> dict[str, float]:
    """The values of all linear schedules in a settings dataclass."""
    values: dict[str, float] = {}
    if not dataclasses.is_dataclass(settings):
        return values
    for field in dataclasses.fields(settings):
        value = vars(settings)[field.name]
        if isinstance(value, LinearSchedule):
            values[f"{prefix}.{field.name}"] = value.at(progress)
        else:
            values |= _ratios(f"{prefix}.{field.name}", value, progress)
    return values
