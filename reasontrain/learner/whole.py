"""A model's weights tensor by tensor, whole and without adapters, wherever its parts lie; and the directories made of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from reasontrain.learner.lora import merged_weight, save_adapter
from reasontrain.models import Policy

Gather = Callable[[Sequence[nn.Parameter]], AbstractContextManager[object]]
"""Makes these parameters whole within a block; every rank enters it together."""


def in_place(parameters: Sequence[nn.Parameter]) -> AbstractContextManager[object]:
    """For parameters that are whole already."""
    return nullcontext(parameters)


@torch.no_grad()
def tensors(model: nn.Module, gather: Gather = in_place) -> Iterator[tuple[str, Tensor]]:
    """Names and weights as the plain model has them, adapters merged; each tensor is whole until the next is asked for."""
    seen: set[int] = set()
    for path, module in model.named_modules(remove_duplicate=False):
        prefix = f"{path}." if path else ""
        if isinstance(module, LoraLayer):
            base = module.get_base_layer()
            seen |= {id(parameter) for parameter in module.parameters()}
            with gather(list(module.parameters())):
                yield f"{prefix}weight", merged_weight(module)
                if base.bias is not None:
                    yield f"{prefix}bias", base.bias
            continue
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                with gather([parameter]):
                    yield prefix + name, parameter
        for name, buffer in module.named_buffers(recurse=False):
            if name not in module._non_persistent_buffers_set:
                yield prefix + name, buffer


@torch.no_grad()
def adapters(model: nn.Module, gather: Gather = in_place) -> Iterator[tuple[str, Tensor]]:
    """The adapters' weights alone, by the adapted model's names."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            with gather([parameter]):
                yield name, parameter


def save_model(policy: Policy, directory: Path, named: Iterator[tuple[str, Tensor]], dtype: torch.dtype) -> None:
    """A Hugging Face directory of these weights in one dtype, with the tokenizer."""
    state = {name: tensor.detach().to("cpu", dtype, copy=True) for name, tensor in named}
    policy.model.save_pretrained(directory, state_dict=state)
    _set_dtype(directory / "config.json", dtype)
    policy.tokenizer.save_pretrained(directory)


def save_adapted(policy: Policy, directory: Path, named: Iterator[tuple[str, Tensor]]) -> None:
    """An adapter directory, with the tokenizer."""
    save_adapter(policy.model, {name: tensor.detach().to("cpu", copy=True) for name, tensor in named}, directory)
    policy.tokenizer.save_pretrained(directory)


def _set_dtype(config: Path, dtype: torch.dtype) -> None:
    """Let a saved configuration name the dtype of the weights beside it, for those who load with `dtype="auto"`."""
    content = json.loads(config.read_text(encoding="utf-8"))
    content["dtype"] = str(dtype).removeprefix("torch.")
    config.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
