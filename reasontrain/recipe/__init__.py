"""Recipes: what a run is, as frozen typed settings, and how a YAML file becomes one."""

from reasontrain.recipe.engines import Local, Vllm
from reasontrain.recipe.read import apply_overrides, as_mapping, as_yaml, build, changed_keys, read_recipe, read_yaml
from reasontrain.recipe.scale import Cluster, Zero
from reasontrain.recipe.settings import (
    AdamW,
    CheckpointSettings,
    EvaluateSettings,
    LearnSettings,
    Muon,
    Recipe,
    RecipeError,
    SampleSettings,
    Suite,
    TrackSettings,
    is_due,
)

__all__ = [
    "AdamW",
    "CheckpointSettings",
    "Cluster",
    "EvaluateSettings",
    "LearnSettings",
    "Local",
    "Muon",
    "Recipe",
    "RecipeError",
    "SampleSettings",
    "Suite",
    "TrackSettings",
    "Vllm",
    "Zero",
    "apply_overrides",
    "as_mapping",
    "as_yaml",
    "build",
    "changed_keys",
    "is_due",
    "read_recipe",
    "read_yaml",
]
