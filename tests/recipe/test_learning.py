"""Recipes with several optimiser steps per batch: what goes together, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from reasontrain.recipe import read_recipe
from reasontrain.types import UserError

TINY = Path(__file__).parents[2] / "recipes" / "tiny"


def fault(recipe: str, *overrides: str) -> str:
    with pytest.raises(UserError) as error:
        read_recipe(TINY / f"{recipe}.yaml", overrides)
    return str(error.value)


@pytest.mark.parametrize("recipe", ["grpo", "tip", "cdpo", "sstoken"])
def test_ratios_distillation_likelihood_and_pairs_may_take_several(recipe: str) -> None:
    learn = read_recipe(
        TINY / f"{recipe}.yaml", ["learn.updates_per_batch=4", "learn.epochs_per_batch=2"]
    ).learn
    assert learn.mini_batches == 2


def test_old_log_probs_are_the_learners_with_more_than_one() -> None:
    assert read_recipe(TINY / "grpo.yaml").reuses_sampled_logp
    assert not read_recipe(TINY / "grpo.yaml", ["learn.updates_per_batch=2"]).reuses_sampled_logp


@pytest.mark.parametrize(
    ("recipe", "overrides", "message"),
    [
        (
            "grpo",
            ["learn.updates_per_batch=3"],
            "learn.updates_per_batch: 256 rollouts of a step do not divide into 3 equal",
        ),
        (
            "cdpo",
            ["learn.updates_per_batch=4", "learn.rollouts_per_step=12"],
            "learn.updates_per_batch: 6 pairs of a step do not divide into 4 equal mini-batches",
        ),
        (
            "grpo",
            ["learn.updates_per_batch=4", "learn.epochs_per_batch=3"],
            "learn.updates_per_batch: 4 is not a multiple of learn.epochs_per_batch 3",
        ),
        (
            "grpo",
            ["learn.epochs_per_batch=2"],
            "learn.epochs_per_batch: 2 passes over a batch need as many updates",
        ),
        (
            "grpo",
            ["learn.updates_per_batch=2", "objective={kind: reinforce}"],
            "learn.updates_per_batch: reinforce is right only for rollouts of the weights",
        ),
        (
            "soft_tokens",
            ["learn.updates_per_batch=2"],
            "learn.updates_per_batch: soft_reinforce is right only for rollouts of the weights",
        ),
        (
            "grpo",
            ["steps=2", "learn.updates_per_batch=4", "learn.warmup_steps=8"],
            "learn.warmup_steps: 8 must be less than the 8 optimiser steps of the run",
        ),
        (
            "grpo",
            ["learn.updates_per_batch=2", "cluster={learners: 1, samplers: 1, overlap: 1}"],
            "cluster.overlap: rollouts sampled one step ahead are older still",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(
    recipe: str, overrides: list[str], message: str
) -> None:
    assert message in fault(recipe, *overrides)


def test_warm_up_counts_optimiser_steps() -> None:
    recipe = read_recipe(
        TINY / "grpo.yaml", ["steps=2", "learn.updates_per_batch=4", "learn.warmup_steps=7"]
    )
    assert recipe.learn.warmup_steps == 7
