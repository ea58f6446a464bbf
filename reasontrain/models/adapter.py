"""A LoRA adapter in a directory of its own, merged into its base model: an ordinary policy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from peft import LoraConfig, PeftConfig, PeftModel, PeftType, get_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from peft.utils import ModulesToSaveWrapper, load_peft_weights

from reasontrain.models.adapter_files import own_tokenizer
from reasontrain.models.loading import check_head, dtype_of_weights
from reasontrain.models.loading import load as load_model
from reasontrain.models.paths import readable
from reasontrain.models.placement import Placement
from reasontrain.models.policy import Policy
from reasontrain.models.quiet import log_once, messages_of_libraries
from reasontrain.models.settings import ModelSettings
from reasontrain.models.weights import check_finite, check_shapes
from reasontrain.types import UserError

NAME = "default"
"""The adapter's name inside of peft."""


def load(
    base: ModelSettings,
    adapter: Path,
    *,
    trainable: bool = False,
    placement: Placement | None = None,
) -> Policy:
    """The base model with the adapter merged: W + alpha / rank B A in float32, then cast.

    Args:
        base: the base model and its numerics.
        adapter: the directory of the adapter.
        trainable: keep float32 weights, as `models.load` does.
        placement: the place of merged weights, which are whole before; None: the base's device.

    Returns:
        The merged model, an ordinary policy. It is named by the adapter's directory.

    Raises:
        UserError: the adapter cannot be merged, or it belongs to another model.
    """
    policy = load_model(replace(base, gradient_checkpointing=False, lora=None), trainable=True)
    model = policy.model
    name = f"the adapter {adapter} for {base.path} (is that its base model?)"
    with messages_of_libraries() as messages, readable(name):
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
            get_peft_model_state_dict(adapted, adapter_name=NAME, save_embedding_layers=saved)
            for saved in (False, True)
        )
        in_file = load_peft_weights(str(adapter), device="cpu")
        # peft may write the embeddings beside an adapter that resizes or adapts them.
        beside = {key: with_embeddings[key] for key in in_file.keys() & with_embeddings.keys()}
        check_shapes(name, in_file, own | beside)
        adapted.load_adapter(str(adapter), adapter_name=NAME)
        merged = adapted.merge_and_unload(safe_merge=True)
    for message in messages:
        log_once(str(adapter), message)
    merged.requires_grad_(trainable)
    check_finite(merged, str(adapter))
    if placement is None:
        placement = Placement(policy.device, dtype_of_weights(base, trainable=trainable))
    for parameter in merged.parameters():
        parameter.data = parameter.data.to(placement.dtype)
        placement.place(parameter)
    merged.name_or_path = str(adapter.absolute())
    with placement.whole_in_forward(merged):
        whole = Policy(
            merged.train(trainable),
            own_tokenizer(adapter) or policy.tokenizer,
            getattr(torch, base.dtype),
            policy.vision,
            policy.vocabulary,
        )
        check_head(whole)
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
