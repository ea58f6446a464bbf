"""`reasontrain train`: from a recipe file to a run directory with its model and report."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path

from reasontrain import models, stages
from reasontrain.learner.soft_tokens import alarm
from reasontrain.recipe import Recipe, read_recipe, unused_settings
from reasontrain.report import write_report
from reasontrain.report.alerts import alerts
from reasontrain.report.numbers import percent, short
from reasontrain.report.profile import profile
from reasontrain.report.run import RunRecord, read_run
from reasontrain.run.build import own_run, run_context
from reasontrain.run.progress import progress
from reasontrain.run.signals import Stop
from reasontrain.types import Stats

logger = logging.getLogger(__name__)


def train(path: Path, overrides: Sequence[str]) -> None:
    """Run the recipe in a file to its last step; an interrupted run is resumed."""
    train_recipe(read_recipe(path, overrides))


def train_recipe(recipe: Recipe) -> Path:
    """Run a recipe to its last step, write its report, and return the run directory.

    An interrupted run of the same recipe is resumed.
    """
    models.quiet_libraries()
    for line in unused_settings(recipe):
        logger.warning(f"no effect: {line}")
    with (
        Stop().listening(),
        models.conversions_in(Path(recipe.out)),
        own_run(recipe),
        progress(recipe.name, recipe.steps) as advance,
    ):
        final, places = stages.done(recipe)

        def report(done: int, stats: Stats) -> None:
            advance(done, _few(stats))
            if warning := alarm(stats):
                logger.warning(f"step {done}: {warning}")

        with run_context(final, declared=recipe) as ready:
            directory = ready.run(report, on_start=lambda directory: stages.link(directory, places))
            page, _ = write_report(directory.path)
        run = read_run(directory.path)
        for alert in alerts(run):
            logger.warning(alert.text)
        logger.info(f"{_speed(run)}model: {directory.final.resolve()}\nreport: {page.resolve()}")
    return directory.path


def _speed(run: RunRecord) -> str:
    """A line with the speed of the median step, for the log."""
    speed = profile(run)
    if speed is None:
        return ""
    beside = (
        f", {percent(speed.mfu_update)} of the measured matrix rate in the update"
        if math.isfinite(speed.mfu_update)
        else ""
    )
    return f"speed: {short(speed.sampled_per_s)} tokens/s{beside}\n"


def _few(stats: Stats) -> str:
    """A selection of a step's metrics that fits on a line."""
    shown = [
        name
        for name in ("loss", "reward_mean", "kl_reverse_mean", "kept_share", "grad_norm")
        if name in stats
    ]
    return "  ".join(f"{name.removesuffix('_mean')} {stats[name]:.4g}" for name in shown)
