"""Recipes: what a run is, as frozen typed settings, and how a YAML file becomes one."""

from reasontrain.recipe.contradictions import STORED_EVIDENCE
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
from reasontrain.recipe.unconditional import SmallReference, UncondBase, Unconditional, UncondTuned

__all__ = [
    "STORED_EVIDENCE",
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
    "SmallReference",
    "StartWeights",
    "Suite",
    "TrackSettings",
    "UncondBase",
    "UncondTuned",
    "Unconditional",
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
