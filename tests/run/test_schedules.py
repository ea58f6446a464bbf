"""A run that goes on for another number of steps says what its schedules will do."""

from __future__ import annotations

from pathlib import Path

import pytest

import reasontrain
from reasontrain.algo.keep_ratio_schedule import LinearSchedule
from reasontrain.algo.rollout_filter import MaxVariance, RandomRollouts
from reasontrain.algo.rollout_filter.gfpo import Gfpo
from reasontrain.algo.token_selection import AdvantageEntropy, SsToken
from reasontrain.recipe import Recipe, as_mapping, read_recipe
from reasontrain.run.directory import RunDirectory
from reasontrain.run.schedules import check_schedules
from reasontrain.types import UserError

ROOT = Path(reasontrain.__file__).parent
TINY = ROOT.parent / "recipes/tiny"
SPANNING = (AdvantageEntropy, Gfpo, MaxVariance, RandomRollouts, SsToken)
"""Rules and filters that read the progress of the run."""


def recipe(*overrides: str) -> Recipe:
    return read_recipe(
        TINY / "grpo.yaml", ["learn={lr: 1.0e-3, rollouts_per_step: 8}", "steps=4", *overrides]
    )


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    directory = RunDirectory(tmp_path)
    directory.checkpoint_at(3).mkdir(parents=True)
    return directory


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        # Linear over 4 steps: 1, 3/4, 1/2, 1/4 of the peak; over 6 the fourth has 1/2.
        (
            ["learn.schedule=linear"],
            "the learning rate was 0.0005 at step 3 and would go from 0.0005 at step 4 to "
            "0.0001667 at the end; with the old schedule it would go from 0.00025 at step 4 to 0",
        ),
        (
            ["learn.schedule=linear", "learn.updates_per_batch=2"],
            "the learning rate was 0.0005 at step 3",
        ),
        # From 1 to 0.4 over 4 steps: 1, 0.8, 0.6, 0.4; over 6: 1, 0.88, 0.76, 0.64, 0.52, 0.4.
        (
            ["rollout_filter={kind: max_variance, keep_ratio: {init: 1.0, final: 0.4}}"],
            "rollout_filter.keep_ratio was 0.6 at step 3 and would go from 0.64 at step 4 to 0.4 "
            "at the end; with the old schedule it would be 0.4 from step 4 to the end",
        ),
        (
            ["token_selection={kind: advantage_entropy, keep_ratio: {init: 1.0, final: 0.4}}"],
            "token_selection.keep_ratio was 0.6 at step 3",
        ),
        (
            ["token_selection={kind: sstoken, warmup: 0.7}", "history={kind: start}"],
            "token_selection.gamma was 0 at step 3 and would go from 0 at step 4",
        ),
        (
            [
                "token_selection={kind: shuffled, of: {kind: sstoken, warmup: 0.7}}",
                "history={kind: start}",
            ],
            "token_selection.gamma was 0 at step 3",
        ),
    ],
)
def test_a_schedule_over_another_number_of_steps_needs_a_choice(
    run: RunDirectory, overrides: list[str], text: str
) -> None:
    before = as_mapping(recipe(*overrides))
    check_schedules(run, before, recipe(*overrides))
    with pytest.raises(UserError) as caught:
        check_schedules(run, before, recipe(*overrides, "steps=6"))
    assert text in str(caught.value)
    assert "learn.schedule_steps=4" in str(caught.value)
    assert "resume.accept=[schedule]" in str(caught.value)
    check_schedules(run, before, recipe(*overrides, "steps=6", "resume.accept=[schedule]"))
    check_schedules(run, before, recipe(*overrides, "steps=6", "learn.schedule_steps=4"))
    with pytest.raises(UserError, match="now they span 6"):
        check_schedules(run, before, recipe(*overrides, "learn.schedule_steps=6"))
    with pytest.raises(UserError, match="schedules over 6 steps, and now they span 4"):
        check_schedules(run, as_mapping(recipe(*overrides, "steps=6")), recipe(*overrides))


def test_what_does_not_depend_on_the_steps_needs_none(tmp_path: Path, run: RunDirectory) -> None:
    warm = "learn.warmup_steps=2"
    check_schedules(run, as_mapping(recipe(warm)), recipe(warm, "steps=6"))
    # The last schedule is behind the run already: from step 2 of 4 on gamma is what it stays.
    late = ("token_selection={kind: sstoken, warmup: 0.1}", "history={kind: start}")
    check_schedules(run, as_mapping(recipe(*late)), recipe(*late, "steps=6"))
    # Nothing has been trained yet.
    linear = "learn.schedule=linear"
    new = RunDirectory(tmp_path / "new")
    check_schedules(new, as_mapping(recipe(linear)), recipe(linear, "steps=6"))


def test_every_rule_that_reads_progress_is_known() -> None:
    """Linear schedules are found in a rule's settings; ssToken's warm-up is known by name."""
    readers = {
        path.stem
        for folder in ("rollout_filter", "token_selection", "objectives")
        for path in (ROOT / "algo" / folder).rglob("*.py")
        if "batch.progress" in path.read_text(encoding="utf-8")
    }
    assert readers == {cls.__module__.rpartition(".")[2] for cls in SPANNING}
    for cls in (AdvantageEntropy, MaxVariance, RandomRollouts):
        assert isinstance(cls(keep_ratio=LinearSchedule(init=0.5)).keep_ratio, LinearSchedule)
