"""Facts about a model that need no weights: its directory, configuration, tokenizer and size."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from reasontrain.data.templates import ChatTemplate
from reasontrain.models.adapter_files import adapter_directory, base_settings, own_tokenizer
from reasontrain.models.folder import in_folder
from reasontrain.models.paths import check_path, located, readable
from reasontrain.models.quiet import log_once, messages_of_libraries
from reasontrain.models.settings import Lora, ModelSettings
from reasontrain.models.tokenizers import check_vocabulary
from reasontrain.models.vision import Vision, vision_of

_CONTEXT_NAMES = (
    "max_position_embeddings",
    "max_sequence_length",
    "max_seq_len",
    "seq_length",
    "n_ctx",
)
"""Names of the longest sequence in configurations; each knows its own aliases (`n_positions`)."""


@dataclass(frozen=True)
class Description:
    """A model without its weights.

    `num_trained` counts the parameters that a run trains, all or those of its adapters, and
    `num_matrices` those in matrices of the trunk among them. `stop_ids` are the token ids that end
    a response. `max_model_len` bounds prompt and response where an engine holds less than the
    model's context.
    """

    config: PreTrainedConfig
    tokenizer: PreTrainedTokenizerBase
    num_parameters: int
    num_trained: int
    num_matrices: int
    stop_ids: frozenset[int]
    vision: Vision | None = None
    max_model_len: int | None = None

    @property
    def context(self) -> int:
        """The longest sequence of the model, in tokens."""
        context = context_of(self.config)
        return min(context, self.max_model_len or context)

    def saved_bytes(self) -> int:
        """Bytes of the tokenizer and the image processor that are saved with a model."""
        with TemporaryDirectory() as directory:
            self.tokenizer.save_pretrained(directory)
            if self.vision is not None:
                self.vision.save(Path(directory))
            return sum(file.stat().st_size for file in Path(directory).iterdir())


def context_of(config: PreTrainedConfig) -> int:
    """The longest sequence of models with this configuration, in tokens.

    It is `sys.maxsize` for models without such a limit, as recurrent ones are.
    """
    text = config.get_text_config()
    values = text.to_dict()
    # GPT-2's n_positions and its like are aliases, which only the configuration's class knows.
    limits = [values.get(text.attribute_map.get(name, name)) for name in _CONTEXT_NAMES]
    context = next((limit for limit in limits if isinstance(limit, int)), sys.maxsize)
    return min([context, *_longrope_limits(text)])


def cache_numbers(config: PreTrainedConfig) -> int:
    """Numbers that a key-value cache holds of one token, in all layers; 0 without attention."""
    text = config.get_text_config()
    optional = text.to_dict()
    # GPT-2 and others have names of their own, which only the configuration's class knows.
    heads = optional.get(text.attribute_map.get("num_attention_heads", "num_attention_heads"))
    if not heads:
        return 0
    head_dim = int(optional.get("head_dim") or int(text.hidden_size) // heads)
    kv_heads = int(optional.get("num_key_value_heads") or heads)
    return 2 * int(text.num_hidden_layers) * kv_heads * head_dim


def _longrope_limits(text: PreTrainedConfig) -> list[int]:
    """The lengths up to which rotary embeddings of type `longrope` do not change.

    Beyond, all sequences of a batch are embedded in another way as soon as one is that long, so a
    sequence would not be scored as it was sampled.
    """
    rope = text.to_dict().get("rope_parameters") or {}
    by_layer = [rope, *(value for value in rope.values() if isinstance(value, dict))]
    return [
        int(each["original_max_position_embeddings"])
        for each in by_layer
        if each.get("rope_type") == "longrope"
    ]


def describe(settings: ModelSettings) -> Description:
    """Configuration, tokenizer and size of the model at `settings.path`.

    What libraries warn about is in the log. Raises UserError if they cannot be read.
    """
    check_path(settings.path)
    adapter = adapter_directory(settings.path)
    settings = base_settings(settings)
    name = settings.path
    check_path(name)
    if settings.revision is not None and in_folder(name) is not None:
        log_once(name, f"its `revision` {settings.revision} is not compared with the directory")
    with located(name) as path, messages_of_libraries() as messages, readable(name):
        source = {"revision": settings.revision, "trust_remote_code": settings.trust_remote_code}
        config = AutoConfig.from_pretrained(path, **source)
        own = own_tokenizer(adapter) if adapter is not None else None
        tokenizer = own or AutoTokenizer.from_pretrained(path, **source)
        # On the meta device parameters have shapes and no memory.
        with torch.device("meta"):
            model = class_of(config).from_config(
                config, trust_remote_code=settings.trust_remote_code
            )
        vision = vision_of(config, tokenizer, path, settings.revision)
        try:
            generation = GenerationConfig.from_pretrained(path, revision=settings.revision)
        except OSError:  # generation_config.json is optional
            generation = model.generation_config
    check_vocabulary(tokenizer, name)
    rows = model.get_input_embeddings().weight.shape[0]
    if bare := sorted(token for token, index in tokenizer.get_vocab().items() if index >= rows):
        messages.append(
            f"the tokenizer has tokens without an embedding ({len(bare)}, such as {bare[0]!r}); "
            f"text with them cannot be used"
        )
    for message in messages:
        log_once(name, message)
    if limits := _longrope_limits(config.get_text_config()):
        log_once(
            name,
            f"its rotary embeddings (longrope) change for a whole batch beyond {min(limits)} "
            f"tokens, so that is the longest sequence here",
        )
    num_trained, num_matrices = _num_trained(model, settings.lora)
    return Description(
        config,
        tokenizer,
        model.num_parameters(),
        num_trained,
        num_matrices,
        stop_ids_of(generation, tokenizer),
        vision,
    )


def _num_trained(model: PreTrainedModel, lora: Lora | None) -> tuple[int, int]:
    """Parameters that are trained, and those of them that are in matrices of the trunk."""
    if lora is None:
        table = model.get_input_embeddings().weight.shape
        matrices = [p for p in model.parameters() if p.ndim == 2 and p.shape != table]
        return model.num_parameters(), sum(p.numel() for p in matrices)
    adapters = sum(
        lora.rank * (module.in_features + module.out_features)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.rpartition(".")[2] in lora.targets
    )
    return adapters, adapters


def class_of(
    config: PreTrainedConfig,
) -> type[AutoModelForCausalLM] | type[AutoModelForImageTextToText]:
    """The transformers class that loads models with this configuration."""
    return (
        AutoModelForImageTextToText if "vision_config" in config.to_dict() else AutoModelForCausalLM
    )


def stop_ids_of(generation: GenerationConfig, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Token ids that end a response.

    They are those of the generation settings and the tokenizer, and the tokens that the chat
    template ends an answer with: `<end_of_turn>` is the end-of-text token of no Gemma.
    """
    configured = generation.eos_token_id
    ids = configured if isinstance(configured, list) else [configured]
    ends = ChatTemplate(tokenizer).end_ids() if tokenizer.chat_template is not None else frozenset()
    return ends | {int(i) for i in [*ids, tokenizer.eos_token_id] if i is not None}
