"""The environments of a recipe: checked before the run, kept with it, and its inputs."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from reasontrain.data.environment import EnvironmentSettings, PythonEnvironment
from reasontrain.environments.processes import environment_file
from reasontrain.environments.runner import make_runner
from reasontrain.plugins.imports import with_imports
from reasontrain.recipe import Recipe


def environments_of(recipe: Recipe) -> Mapping[str, EnvironmentSettings]:
    """The environments of training (`environment`) and of the suites (`environment-<suite>`)."""
    environments = {"environment": recipe.sample.environment if recipe.sample else None}
    for suite in recipe.evaluate.suites if recipe.evaluate else ():
        environments[f"environment-{suite.name}"] = suite.sampling.environment
    return {part: each for part, each in environments.items() if each is not None}


def check_environments(recipe: Recipe) -> None:
    """Load each environment once; raise UserError if one cannot be loaded."""
    environments = environments_of(recipe).values()
    for settings in environments:
        freeze(settings)
    for settings in dict.fromkeys(environments):
        with closing(make_runner(settings)) as runner:
            runner.check()


def freeze(settings: EnvironmentSettings | None) -> None:
    """Read a user's file here: the processes that settings are sent to run it as it is now.

    Raises:
        UserError: it cannot be read.
    """
    if isinstance(settings, PythonEnvironment):
        environment_file(settings)


def environment_code(settings: EnvironmentSettings | None) -> tuple[Path, ...]:
    """The user's file of an environment, and the modules beside it that it imports."""
    if not isinstance(settings, PythonEnvironment):
        return ()
    return with_imports(Path(settings.path))
