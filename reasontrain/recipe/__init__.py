"""Recipes: a run as frozen typed settings, read from a YAML file."""

from reasontrain.recipe.cluster import Cluster, Zero
from reasontrain.recipe.engines import (
    ENGINES,
    EngineSettings,
    LocalEngine,
    SamplerCapabilities,
    SamplerEngine,
    VllmEngine,
)
from reasontrain.recipe.history import History, MovingAverage, PastCheckpoint, StartWeights
from reasontrain.recipe.learning import AdamW, LearnSettings, Muon
from reasontrain.recipe.plugins import folder_of
from reasontrain.recipe.read import (
    apply_overrides,
    as_mapping,
    as_yaml,
    build,
    changed_keys,
    json_schema,
    read_recipe,
    recipe_of,
    setting_error,
)
from reasontrain.recipe.run_settings import (
    AcceptedChange,
    CheckpointSettings,
    EvaluateSettings,
    ResumeSettings,
    Suite,
    TrackSettings,
    is_due,
)
from reasontrain.recipe.sampling import SampleSettings
from reasontrain.recipe.settings import Recipe, RecipeError
from reasontrain.recipe.stage_references import OUTPUTS, SCHEME, references, split
from reasontrain.recipe.stages import (
    ContrastStage,
    LogRatioStage,
    PairsStage,
    ReferenceStage,
    SampleStage,
    Stage,
    TrajectoriesStage,
    TuneStage,
)
from reasontrain.recipe.teachers import (
    ServedTeacher,
    StoredTeacher,
    Teacher,
    TeacherByColumn,
    TeacherMixture,
    TeacherOfValue,
    TeacherPromptSettings,
    WeightedTeacher,
    WeightsTeacher,
)
from reasontrain.recipe.unconditional import (
    SmallReference,
    UncondBase,
    Unconditional,
    UncondTuned,
)
from reasontrain.recipe.unused import unused_settings
from reasontrain.recipe.yaml_text import YamlValue, read_yaml

__all__ = [
    "ENGINES",
    "OUTPUTS",
    "SCHEME",
    "AcceptedChange",
    "AdamW",
    "CheckpointSettings",
    "Cluster",
    "ContrastStage",
    "EngineSettings",
    "EvaluateSettings",
    "History",
    "LearnSettings",
    "LocalEngine",
    "LogRatioStage",
    "MovingAverage",
    "Muon",
    "PairsStage",
    "PastCheckpoint",
    "Recipe",
    "RecipeError",
    "ReferenceStage",
    "ResumeSettings",
    "SampleSettings",
    "SampleStage",
    "SamplerCapabilities",
    "SamplerEngine",
    "ServedTeacher",
    "SmallReference",
    "Stage",
    "StartWeights",
    "StoredTeacher",
    "Suite",
    "Teacher",
    "TeacherByColumn",
    "TeacherMixture",
    "TeacherOfValue",
    "TeacherPromptSettings",
    "TrackSettings",
    "TrajectoriesStage",
    "TuneStage",
    "UncondBase",
    "UncondTuned",
    "Unconditional",
    "VllmEngine",
    "WeightedTeacher",
    "WeightsTeacher",
    "YamlValue",
    "Zero",
    "apply_overrides",
    "as_mapping",
    "as_yaml",
    "build",
    "changed_keys",
    "folder_of",
    "is_due",
    "json_schema",
    "read_recipe",
    "read_yaml",
    "recipe_of",
    "references",
    "setting_error",
    "split",
    "unused_settings",
]
