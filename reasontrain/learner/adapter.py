"""A LoRA adapter in a directory of its own, merged into its base model: an ordinary policy."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch
from peft import LoraConfig, PeftConfig, PeftModel, PeftType, get_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from peft.utils import ModulesToSaveWrapper, load_peft_weights
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from reasontrain import models
from reasontrain.learner.lora import ADAPTER
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
    name = f"the adapter {adapter} for {base.path} (is that its base model? --base names another)"
    with models.messages_of_libraries() as messages, models.readable(name):
        config = PeftConfig.from_pretrained(str(adapter))
        if not isinstance(config, LoraConfig):
            kind = PeftType(config.peft_type).value
            raise UserError(
                f"{adapter} is an adapter of kind {kind}, and only LoRA's are merged here; "
                f"merge it first"
            )
        adapted = PeftModel(model, config)
        _check_tied(adapted, adapter)
        own, with_embeddings = (
            get_peft_model_state_dict(adapted, adapter_name=ADAPTER, save_embedding_layers=saved)
            for saved in (False, True)
        )
        in_file = load_peft_weights(str(adapter), device="cpu")
        # peft may write the embeddings beside an adapter that resizes or adapts them.
        beside = {key: with_embeddings[key] for key in in_file.keys() & with_embeddings.keys()}
        models.check_shapes(name, in_file, own | beside)
        adapted.load_adapter(str(adapter), adapter_name=ADAPTER)
        merged = adapted.merge_and_unload(safe_merge=True)
    for message in messages:
        models.log_once(str(adapter), message)
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
    models.check_finite(whole.model, str(adapter))
    models.check_head(whole)
    return whole


def _check_tied(adapted: PeftModel, adapter: Path) -> None:
    """Refuse an adapter on one of two tied matrices, which merging would get wrong."""
    model = adapted.get_base_model()
    tied = model.config.get_text_config().tie_word_embeddings
    adapted_names = {
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, LoraLayer | ModulesToSaveWrapper)
    }
    if changed := sorted(adapted_names & {"lm_head", "embed_tokens"}) if tied else []:
        raise UserError(
            f"{adapter} changes {' and '.join(changed)}, whose weight the model uses twice (tied "
            f"embeddings): merging would change both uses; merge it yourself as it was trained"
        )
