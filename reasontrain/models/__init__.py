"""Language models as a trunk and a head: described without weights, loaded and checked.

Settings are imported at once, because recipes consist of them. The rest is imported on first use:
it needs torch and transformers, and reading a recipe should not wait for them.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from reasontrain.models.settings import LINEAR, DType, Importance, Lora, ModelSettings, Shape

if TYPE_CHECKING:
    from reasontrain.models.description import (
        Description,
        class_of,
        context_of,
        describe,
        located,
    )
    from reasontrain.models.embedding import InputSpace, keep_rms
    from reasontrain.models.fingerprints import fingerprint
    from reasontrain.models.loading import (
        check_head,
        check_same_ids,
        load,
        recompute_activations,
    )
    from reasontrain.models.policy import Policy
    from reasontrain.models.quiet import quiet_libraries
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

_MODULES = {
    "Description": "description",
    "class_of": "description",
    "context_of": "description",
    "describe": "description",
    "located": "description",
    "InputSpace": "embedding",
    "keep_rms": "embedding",
    "fingerprint": "fingerprints",
    "check_head": "loading",
    "check_same_ids": "loading",
    "load": "loading",
    "recompute_activations": "loading",
    "Policy": "policy",
    "quiet_libraries": "quiet",
    "Vision": "vision",
}
"""The module of each name that is imported when it is first used.

No module may have the name of what it defines: Python would bind the module to that name here.
"""

if (
    not TYPE_CHECKING
):  # a type checker reads the imports above, and would accept any name after this

    def __getattr__(name: str) -> object:
        """Import a name of `_MODULES` when it is first used (PEP 562)."""
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
        return globals()[name]
