"""`reasontrain train`: from a recipe file to a run directory with its model and report."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from reasontrain import checkpoint, loop
from reasontrain.assemble import assembled
from reasontrain.cli.terminal import progress, quiet_libraries
from reasontrain.learner.soft import alarm
from reasontrain.recipe import read_recipe
from reasontrain.report import write_report
from reasontrain.types import Stats


def train(path: Path, overrides: Sequence[str]) -> None:
    """Run the recipe to its last step; whatever was already done is not done again."""
    recipe = read_recipe(path, overrides)
    quiet_libraries()
    with progress(recipe.name, recipe.steps) as (advance, say), assembled(recipe, say) as ready:
        run, from_step = ready.begin()

        def report(step: int, stats: Stats) -> None:
            advance(step + 1, _few(stats))
            if warning := alarm(stats):
                say(f"step {step}: {warning}")

        try:
            loop.train(run, from_step=from_step, report=report, finish=lambda: _export(ready.learner.export, run.directory))
        finally:
            run.tracker.close()
        page, _ = write_report(run.directory)
        say(f"model: {(run.directory / 'final').resolve()}\nreport: {page.resolve()}")


def _export(write: Callable[[Path], None], directory: Path) -> None:
    """`final/`, as a whole or not at all."""
    partial, final = directory / ".partial-final", directory / "final"
    shutil.rmtree(partial, ignore_errors=True)
    with checkpoint.whole(partial):
        write(partial)
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)


def _few(stats: Stats) -> str:
    """The few numbers of a step that fit on a line."""
    shown = [name for name in ("loss", "reward_mean", "kl_reverse_mean", "kept_share", "grad_norm") if name in stats]
    return "  ".join(f"{name.removesuffix('_mean')} {stats[name]:.4g}" for name in shown)
