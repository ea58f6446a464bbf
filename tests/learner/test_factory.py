"""The dtype in which the weights of a recipe's models are read and kept."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from reasontrain.learner.factory import placement_of
from reasontrain.recipe import Recipe, Zero, apply_overrides, build

RECIPE = {
    "name": "x",
    "steps": 10,
    "model": {"path": "testbed:student", "dtype": "bfloat16", "device": "cpu"},
    "task": {"kind": "arithmetic"},
    "objective": {"kind": "nll"},
    "loss_aggregation": "token_mean",
    "learn": {"lr": 0.001, "rollouts_per_step": 8},
}


@pytest.mark.parametrize(
    ("changes", "stage", "dtype"),
    [
        ((), None, torch.float32),  # the optimiser moves these
        ((), 0, torch.float32),
        ((), 1, torch.bfloat16),  # and here DeepSpeed's copies
        ((), 2, torch.bfloat16),
        (("model.lora={rank: 4}",), None, torch.bfloat16),
        (("model.lora={rank: 4}",), 0, torch.bfloat16),
        (("model.lora={rank: 4}",), 2, torch.bfloat16),
        (("model.lora={rank: 4}", "model.dtype=float32"), None, torch.float32),
        (("model.dtype=float32",), 2, torch.float32),
    ],
)
def test_only_weights_that_an_optimiser_moves_are_read_in_float32(
    changes: tuple[str, ...], stage: int | None, dtype: torch.dtype
) -> None:
    recipe = build(Recipe, apply_overrides(RECIPE, changes), "test")
    zero = None if stage is None else Zero(stage=stage)
    placement = placement_of(replace(recipe, learn=replace(recipe.learn, zero=zero)))
    assert placement.dtype == dtype
    assert placement.device.type == "cpu"
