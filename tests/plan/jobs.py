"""Recipes for the tests of a plan: a model by its sizes alone."""

from __future__ import annotations

from reasontrain.models import Shape
from reasontrain.plan.machine import Machine
from reasontrain.plan.roles import PlannedJob, job_of
from reasontrain.recipe import Recipe, apply_overrides, build

QWEN3_4B = {
    "hidden_size": 2560,
    "intermediate_size": 9728,
    "num_layers": 36,
    "num_heads": 32,
    "num_kv_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
    "tied": True,
    "qk_norm": True,
}
QWEN3_8B = QWEN3_4B | {"hidden_size": 4096, "intermediate_size": 12288, "tied": False}
GRPO = {
    "name": "x",
    "steps": 10,
    "model": {"path": "nobody/nothing", "dtype": "bfloat16", "shape": QWEN3_4B},
    "task": {"kind": "arithmetic"},
    "sample": {"max_tokens": 1536, "group_size": 8},
    "advantage": {"kind": "group_normalized"},
    "objective": {"kind": "grpo"},
    "loss_aggregation": "token_mean",
    "learn": {"lr": 1e-6, "rollouts_per_step": 256},
}


def recipe(*overrides: str) -> Recipe:
    return build(Recipe, apply_overrides(GRPO, overrides), "test")


def job(*overrides: str, machine: Machine | None = None) -> PlannedJob:
    return job_of(recipe(*overrides), machine or Machine())


def shape(sizes: dict[str, object]) -> Shape:
    return build(Shape, sizes, "test")
