"""A LoRA adapter in a directory of its own, merged into its base model: an ordinary policy."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch
from peft import LoraConfig, PeftConfig, PeftModel, PeftType
from peft.tuners.lora import LoraLayer
from safetensors import SafetensorError
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from reasontrain import models
from reasontrain.models import ModelSettings, Policy
from reasontrain.types import UserError

CONFIG = "adapter_config.json"


def is_adapter(path: str) -> bool:
    """True for a directory that holds an adapter rather than a whole model."""
    return (Path(path) / CONFIG).is_file() and not (Path(path) / "config.json").is_file()


def base_of(adapter: Path) -> str:
    """The base model that an adapter names; raises UserError if it names none."""
    try:
        base = json.loads((adapter / CONFIG).read_text(encoding="utf-8")).get(
            "base_model_name_or_path"
        )
    except ValueError as error:
        raise UserError(f"{adapter / CONFIG} is no JSON ({error})") from error
    if not base:
        raise UserError(
            f"{adapter} does not say which model it adapts (base_model_name_or_path); say "
            f"it with --base"
        )
    return str(base)


def fingerprint(base: ModelSettings, adapter: Path) -> str:
    """The base model's fingerprint and the adapter's, whose dtype is the base's."""
    _, _, own = models.fingerprint(replace(base, path=str(adapter), revision=None)).partition(" ")
    return f"{models.fingerprint(base)} adapter {own}"


def own_tokenizer(adapter: Path) -> PreTrainedTokenizerBase | None:
    """The tokenizer in an adapter's directory, if it has one."""
    return (
        AutoTokenizer.from_pretrained(adapter)
        if (adapter / "tokenizer_config.json").is_file()
        else None
    )


def load(base: ModelSettings, adapter: Path) -> Policy:
    """The base model with the adapter merged: W + alpha / rank B A in float32, then cast.

    The result has the dtype of `base`. Raises UserError for an adapter that cannot be merged, or
    that belongs to another model.
    """
    policy = models.load(base, trainable=True)
    model = policy.model
    try:
        config = PeftConfig.from_pretrained(str(adapter))
        if not isinstance(config, LoraConfig):
            kind = PeftType(config.peft_type).value
            raise UserError(
                f"{adapter} is an adapter of kind {kind}, and only LoRA's are merged here; "
                f"merge it first"
            )
        adapted = PeftModel(model, config)
        result = adapted.load_adapter(str(adapter), adapter_name="default")
        _check(adapted, adapter, [*result.missing_keys, *result.unexpected_keys])
        merged = adapted.merge_and_unload(safe_merge=True)
    except UserError:
        raise
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{adapter} cannot be merged into {base.path}: {first}; is that its base model "
            f"(--base)?"
        ) from error
    merged.requires_grad_(False)
    dtype = getattr(torch, base.dtype)
    for parameter in merged.parameters():
        parameter.data = parameter.data.to(dtype)
    whole = Policy(
        merged.eval(),
        own_tokenizer(adapter) or policy.tokenizer,
        dtype,
        policy.vision,
        policy.vocabulary,
    )
    models.check_head(whole)
    return whole


def _check(adapted: PeftModel, adapter: Path, strange: list[str]) -> None:
    """Refuse missing or unexpected weights, and adapters that merging would get wrong."""
    if strange:
        raise UserError(
            f"{adapter} does not fit the model: {len(strange)} of its weights are missing "
            f"on one side (such as {strange[0]}); "
            "is that its base model (--base)?"
        )
    model = adapted.get_base_model()
    tied = model.config.get_text_config().tie_word_embeddings
    ends = {
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, LoraLayer)
    }
    if tied and ends & {"lm_head", "embed_tokens"}:
        raise UserError(
            f"{adapter} changes "
            f"{' and '.join(sorted(ends & {'lm_head', 'embed_tokens'}))}, whose weight the "
            f"model uses twice "
            "(tied embeddings): merging would change both uses; merge it yourself as it was trained"
        )
