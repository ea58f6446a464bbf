"""Language models as a trunk and a head: described without their weights, loaded, and refused where
they cannot serve.
"""

from reasontrain.models.attention import Importance
from reasontrain.models.describe import Description, class_of, context_of, describe, located
from reasontrain.models.embedding import InputSpace, keep_rms
from reasontrain.models.fingerprint import fingerprint
from reasontrain.models.load import check_head, check_same_ids, load, recompute_activations
from reasontrain.models.policy import Policy
from reasontrain.models.quiet import quiet_libraries
from reasontrain.models.settings import LINEAR, DType, Lora, ModelSettings, Shape
from reasontrain.models.vision import Vision

__all__ = [
    "LINEAR",
    "DType",
    "Description",
    "Importance",
    "InputSpace",
    "Lora",
    "ModelSettings",
    "Policy",
    "Shape",
    "Vision",
    "check_head",
    "check_same_ids",
    "class_of",
    "context_of",
    "describe",
    "fingerprint",
    "keep_rms",
    "load",
    "located",
    "quiet_libraries",
    "recompute_activations",
]
