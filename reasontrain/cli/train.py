"""`reasontrain train`: from a recipe file to a run directory with its model and report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from reasontrain import checkpoint, loop, stages
from reasontrain.assemble import Assembled, Say, assembled
from reasontrain.cli.terminal import progress, quiet_libraries
from reasontrain.learner.soft import alarm
from reasontrain.recipe import Recipe, read_recipe
from reasontrain.report import write_report
from reasontrain.types import Stats


def train(path: Path, overrides: Sequence[str]) -> None:
    """Run the recipe to its last step; whatever was already done is not done again."""
    recipe = read_recipe(path, overrides)
    quiet_libraries()
    with progress(recipe.name, recipe.steps) as (advance, say), _ready(recipe, say) as (ready, places):
        run, from_step = ready.begin()
        stages.link(run.directory, places)

        def report(step: int, stats: Stats) -> None:
            advance(step + 1, _few(stats))
            if warning := alarm(stats):
                say(f"step {step}: {warning}")

        try:
            finish = partial(checkpoint.final, run.directory, ready.learner.export)
            loop.train(run, from_step=from_step, report=report, finish=finish)
        finally:
            run.tracker.close()
        page, _ = write_report(run.directory)
        say(f"model: {(run.directory / 'final').resolve()}\nreport: {page.resolve()}")


@contextmanager
def _ready(recipe: Recipe, say: Say) -> Iterator[tuple[Assembled, Mapping[str, Path]]]:
    """The run that could start now, all that comes before it done; and where each stage's output lies."""
    final, places = stages.done(recipe, say)
    with assembled(final, say, given=recipe) as ready:
        yield ready, places


def _few(stats: Stats) -> str:
    """The few numbers of a step that fit on a line."""
    shown = [name for name in ("loss", "reward_mean", "kl_reverse_mean", "kept_share", "grad_norm") if name in stats]
    return "  ".join(f"{name.removesuffix('_mean')} {stats[name]:.4g}" for name in shown)
