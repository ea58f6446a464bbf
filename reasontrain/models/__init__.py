"""Language models as a trunk and a head: description without weights, loading, and checks.

Settings are imported eagerly, because recipes consist of them. The rest is imported on first use:
it needs torch and transformers, whose import would slow down reading a recipe.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from reasontrain.models.folder import MODEL_VARIABLES, in_folder
from reasontrain.models.settings import LINEAR, DType, Importance, Lora, ModelSettings, Shape

if TYPE_CHECKING:
    from reasontrain.models.adapter_files import (
        adapter_directory,
        base_of,
        base_settings,
        own_tokenizer,
    )
    from reasontrain.models.attention_choice import heads_refusal
    from reasontrain.models.description import (
        Description,
        cache_numbers,
        class_of,
        context_of,
        describe,
    )
    from reasontrain.models.embedding import InputSpace
    from reasontrain.models.fingerprints import adapter_fingerprint, fingerprint, quick_fingerprint
    from reasontrain.models.kernels import choose_sdpa_kernels
    from reasontrain.models.loading import (
        check_head,
        check_same_ids,
        device_of,
        dtype_of_weights,
        load,
        recompute_activations,
    )
    from reasontrain.models.paths import (
        check_path,
        conversions_in,
        gguf_file,
        located,
        on_this_machine,
        readable,
        sentence,
        sources,
    )
    from reasontrain.models.placement import Placement
    from reasontrain.models.policy import Policy
    from reasontrain.models.quiet import log_once, messages_of_libraries, quiet_libraries
    from reasontrain.models.tokenizers import facts_about
    from reasontrain.models.vision import Vision
    from reasontrain.models.weights import (
        check_finite,
        check_shapes,
        check_tied_files,
        load_weights,
        open_to_readers,
    )

__all__ = [
    "LINEAR",
    "MODEL_VARIABLES",
    "DType",
    "Description",
    "Importance",
    "InputSpace",
    "Lora",
    "ModelSettings",
    "Placement",
    "Policy",
    "Shape",
    "Vision",
    "adapter_directory",
    "adapter_fingerprint",
    "base_of",
    "base_settings",
    "cache_numbers",
    "check_finite",
    "check_head",
    "check_path",
    "check_same_ids",
    "check_shapes",
    "check_tied_files",
    "choose_sdpa_kernels",
    "class_of",
    "context_of",
    "conversions_in",
    "describe",
    "device_of",
    "dtype_of_weights",
    "facts_about",
    "fingerprint",
    "gguf_file",
    "heads_refusal",
    "in_folder",
    "load",
    "load_weights",
    "located",
    "log_once",
    "messages_of_libraries",
    "on_this_machine",
    "open_to_readers",
    "own_tokenizer",
    "quick_fingerprint",
    "quiet_libraries",
    "readable",
    "recompute_activations",
    "sentence",
    "sources",
]

_MODULES = {
    "adapter_directory": "adapter_files",
    "base_of": "adapter_files",
    "base_settings": "adapter_files",
    "own_tokenizer": "adapter_files",
    "heads_refusal": "attention_choice",
    "Description": "description",
    "cache_numbers": "description",
    "class_of": "description",
    "context_of": "description",
    "describe": "description",
    "check_path": "paths",
    "conversions_in": "paths",
    "gguf_file": "paths",
    "on_this_machine": "paths",
    "sources": "paths",
    "located": "paths",
    "readable": "paths",
    "sentence": "paths",
    "InputSpace": "embedding",
    "adapter_fingerprint": "fingerprints",
    "fingerprint": "fingerprints",
    "quick_fingerprint": "fingerprints",
    "choose_sdpa_kernels": "kernels",
    "check_head": "loading",
    "check_same_ids": "loading",
    "device_of": "loading",
    "dtype_of_weights": "loading",
    "load": "loading",
    "recompute_activations": "loading",
    "Placement": "placement",
    "Policy": "policy",
    "log_once": "quiet",
    "messages_of_libraries": "quiet",
    "quiet_libraries": "quiet",
    "facts_about": "tokenizers",
    "Vision": "vision",
    "check_finite": "weights",
    "check_shapes": "weights",
    "check_tied_files": "weights",
    "load_weights": "weights",
    "open_to_readers": "weights",
}
"""The module of each name that is imported when it is first used.

No module may have the name of what it defines: Python would bind the module to that name here.
"""

# Hidden from type checkers: they read the imports above, and with a module-level __getattr__ they
# would accept any name.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Import a name of `_MODULES` when it is first used (PEP 562)."""
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
        return globals()[name]
