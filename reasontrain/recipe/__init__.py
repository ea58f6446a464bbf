"""Recipes: what a run is, as frozen typed settings, and how a YAML file becomes one."""

from reasontrain.recipe.engines import Local, Vllm
from reasontrain.recipe.history import History, MovingAverage, PastCheckpoint, StartWeights
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
    "History",
    "LearnSettings",
    "Local",
    "MovingAverage",
    "Muon",
    "PastCheckpoint",
    "Recipe",
    "RecipeError",
    "SampleSettings",
    "StartWeights",
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
