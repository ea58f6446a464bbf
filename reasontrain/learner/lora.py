"""LoRA through peft: adapters injected into a policy, saved alone, or merged."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeGuard

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from reasontrain.models import (
    Lora,
    Policy,
    log_once,
    messages_of_libraries,
    open_to_readers,
    readable,
)
from reasontrain.types import UserError

if TYPE_CHECKING:  # importing peft takes half a second, and most runs have no adapter
    from peft import LoraConfig
    from peft.tuners.lora import LoraLayer

ADAPTER = "default"
ADAPTER_FOLDER = "adapter"
"""The folder in `final/` with the adapters alone, beside the merged model."""
PREFIX = "base_model.model."
"""The prefix that peft and transformers give to names in an adapter's file."""


def configuration(lora: Lora, base: str) -> LoraConfig:
    """The adapter as peft describes it; `base` is where the frozen weights come from."""
    from peft import LoraConfig

    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        target_modules=list(lora.targets),
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
        base_model_name_or_path=base,
    )


def adapt(policy: Policy, lora: Lora) -> None:
    """Put trainable float32 adapters on the policy and freeze everything else.

    Raises UserError if the model has no matrix of a name in `lora.targets`, or if peft takes a name
    for a part of fused experts.
    """
    from peft import inject_adapter_in_model

    names = {
        name.rpartition(".")[2]
        for name, module in policy.model.named_modules()
        if isinstance(module, nn.Linear)
    }
    missing = sorted(set(lora.targets) - names)
    if missing:
        raise UserError(
            f"model.lora.targets: the model has no matrix called {', '.join(missing)}; it "
            f"has {', '.join(sorted(names - {'lm_head'}))}"
        )
    policy.model.requires_grad_(False)
    with torch.random.fork_rng(devices=[]), _float32_stand_ins(policy.model):
        torch.manual_seed(0)  # the start of A is the same on every rank and in every run
        with messages_of_libraries() as messages, readable(policy.model.name_or_path):
            inject_adapter_in_model(
                configuration(lora, policy.model.name_or_path), policy.model, adapter_name=ADAPTER
            )
    _check_matrices(policy.model, lora)
    for message in messages:
        log_once(policy.model.name_or_path, message)
    for name, parameter in policy.model.named_parameters():
        if parameter.requires_grad:
            assert "lora_" in name, f"{name} is no adapter"
            assert parameter.dtype == torch.float32, f"{name} is {parameter.dtype}"
    policy.model.train(policy.model.training)


@contextmanager
def _float32_stand_ins(model: PreTrainedModel) -> Iterator[None]:
    """A block in which empty float32 tensors stand in for the matrices of the model.

    peft rounds a new adapter to the dtype of the weight beside it. That of a frozen base is the
    dtype of its products, and the start of A would then depend on it.
    """
    matrices = [module for module in model.modules() if isinstance(module, nn.Linear)]
    weights = [matrix.weight for matrix in matrices]
    try:
        for matrix, weight in zip(matrices, weights, strict=True):
            matrix.weight = nn.Parameter(
                torch.empty(0, dtype=torch.float32, device=weight.device), requires_grad=False
            )
        yield
    finally:
        for matrix, weight in zip(matrices, weights, strict=True):
            matrix.weight = weight


def _check_matrices(model: PreTrainedModel, lora: Lora) -> None:
    """Raise UserError unless exactly the matrices of the target names have adapters.

    For some architectures with experts peft takes `gate_proj`, `up_proj` and `down_proj` for parts
    of the fused experts: it adapts those, which can neither be merged here nor sent to a sampler,
    and leaves out the matrices of that name.
    """
    adapted = {name for name, module in model.named_modules() if is_lora_layer(module)}
    matrices = {
        name for name in adapted if isinstance(model.get_submodule(f"{name}.base_layer"), nn.Linear)
    }
    if adapted != matrices:
        usable = {name.rpartition(".")[2] for name in matrices}
        raise UserError(
            f"model.lora.targets: {', '.join(sorted(set(lora.targets) - usable))} are parts of "
            f"the fused experts of {model.config.model_type}, where adapters are not supported; "
            f"leave them out (targets: [{', '.join(sorted(usable))}])"
        )


def is_lora_layer(module: nn.Module) -> TypeGuard[LoraLayer]:
    """True for a matrix with an adapter; there is none before peft was imported to make it."""
    if "peft" not in sys.modules:
        return False
    from peft.tuners.lora import LoraLayer

    return isinstance(module, LoraLayer)


def is_adapted(model: nn.Module) -> bool:
    """True for a model that carries adapters."""
    return any(is_lora_layer(module) for module in model.modules())


def save_adapter(model: PreTrainedModel, tensors: dict[str, Tensor], directory: Path) -> None:
    """Write an adapter directory that peft and `from_pretrained` load.

    `tensors` are the adapters' weights by the model's names.
    """
    from peft import get_peft_model_state_dict
    from peft.utils import SAFETENSORS_WEIGHTS_NAME

    config: LoraConfig = model.peft_config[ADAPTER]
    state = get_peft_model_state_dict(
        model, state_dict=tensors, adapter_name=ADAPTER, save_embedding_layers=False
    )
    save_file(
        {PREFIX + name: tensor.contiguous() for name, tensor in state.items()},
        directory / SAFETENSORS_WEIGHTS_NAME,
    )
    config.save_pretrained(directory)
    open_to_readers(directory)


def merged_weight(layer: LoraLayer) -> Tensor:
    """W + alpha / rank * B A in float32, whatever W is stored in."""
    base: Tensor = layer.get_base_layer().weight
    return base.float() + layer.get_delta_weight(ADAPTER).float()
