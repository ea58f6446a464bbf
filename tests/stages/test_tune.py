"""The warm-up of a tune stage: refused before anything is sampled, or shortened."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from reasontrain.recipe import Recipe, RecipeError, TuneStage, read_recipe
from reasontrain.stages.tune import check_warmup, tuning

CDPO = Path(__file__).parents[2] / "recipes" / "tiny" / "cdpo.yaml"
SMALL = ("stages.0.task.num_problems=3", "stages.0.sample.group_size=2")


def tune_of(recipe: Recipe) -> tuple[int, TuneStage]:
    return next((i, s) for i, s in enumerate(recipe.stages) if isinstance(s, TuneStage))


@pytest.mark.parametrize(("warmup", "fits"), [(0, True), (2, True), (3, False)])
def test_a_warm_up_that_no_sampling_makes_possible_is_refused(warmup: int, fits: bool) -> None:
    number, _ = tune_of(read_recipe(CDPO))
    learn = f"stages.{number}.learn"
    more = [f"{learn}.warmup_steps={warmup}", f"{learn}.rollouts_per_step=2"]
    recipe = read_recipe(CDPO, [*SMALL, *more, f"stages.{number + 1}.learn.warmup_steps=0"])
    if fits:
        check_warmup(recipe)
        return
    with pytest.raises(RecipeError) as error:
        check_warmup(recipe)
    assert str(error.value).splitlines() == [
        "the stages of cdpo-tiny cannot be run:",
        f"  stages.{number}.learn.warmup_steps: 3 must be less than the steps of the stage, of "
        "which 6 demonstrations at most make 3",
    ]


def test_fewer_demonstrations_than_expected_shorten_the_warm_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = read_recipe(CDPO)
    _, stage = tune_of(recipe)
    rows = [{"problem": f"{n}+1", "answer": "1", "response": "1"} for n in range(4)]
    path = tmp_path / "positive.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    learn = replace(stage.learn, warmup_steps=9, rollouts_per_step=2)
    few = replace(stage, demonstrations=str(path), epochs=1.0, learn=learn)
    tuned = tuning(few, recipe, tmp_path / "tuned")
    assert (tuned.steps, tuned.learn.warmup_steps) == (2, 1)
    assert caplog.messages == [
        f"{stage.name}: warm-up shortened from 9 to 1 steps, because 4 demonstrations make 2 steps"
    ]
