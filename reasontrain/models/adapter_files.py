"""Directories of adapters: their base models, and the tokenizers that some of them hold."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from reasontrain.models.paths import ADAPTER_CONFIG, CONFIG, on_this_machine
from reasontrain.models.settings import ModelSettings
from reasontrain.types import UserError


def adapter_directory(path: str) -> Path | None:
    """The directory at `path` if it holds an adapter rather than a whole model."""
    place = Path(on_this_machine(path))
    is_adapter = (place / ADAPTER_CONFIG).is_file() and not (place / CONFIG).is_file()
    return place if is_adapter else None


def base_of(adapter: Path) -> str:
    """The base model that an adapter names; raises UserError if it names none, or itself."""
    config = adapter / ADAPTER_CONFIG
    try:
        base = json.loads(config.read_text(encoding="utf-8")).get("base_model_name_or_path")
    except ValueError as error:
        raise UserError(f"{config} is no JSON ({error})") from error
    if not base:
        raise UserError(
            f"{adapter} does not say which model it adapts; write its base model into {config} as "
            f"base_model_name_or_path (`evaluate` has --base)"
        )
    if Path(base).resolve() == adapter.resolve():
        raise UserError(f"{config} names the adapter itself as its base model")
    return str(base)


def base_settings(settings: ModelSettings) -> ModelSettings:
    """The settings of the base model of an adapter, or of its base's base; else the settings."""
    adapter = adapter_directory(settings.path)
    if adapter is None:
        return settings
    return base_settings(replace(settings, path=base_of(adapter), revision=None))


def own_tokenizer(adapter: Path) -> PreTrainedTokenizerBase | None:
    """The tokenizer in an adapter's directory, if it has one."""
    return (
        AutoTokenizer.from_pretrained(adapter)
        if (adapter / "tokenizer_config.json").is_file()
        else None
    )
