"""Recipes: what a run is, as frozen typed settings, and how a YAML file becomes one."""

from reasontrain.recipe.contradictions import STORED_EVIDENCE
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
from reasontrain.recipe.unconditional import SmallReference, UncondBase, Unconditional, UncondTuned

__all__ = [
    "STORED_EVIDENCE",
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
    "SmallReference",
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
