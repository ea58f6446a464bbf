"""A model's weights tensor by tensor, whole and without adapters, wherever its parts lie; and the
directories made of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn

from reasontrain.learner.lora import is_adapted, is_lora_layer, merged_weight, save_adapter
from reasontrain.models import Policy

Materialize = Callable[[Sequence[nn.Parameter]], AbstractContextManager[object]]
"""Makes these parameters whole within a block; every rank enters it together."""


def in_place(parameters: Sequence[nn.Parameter]) -> AbstractContextManager[object]:
    """For parameters that are whole already."""
    return nullcontext(parameters)


@torch.no_grad()
def tensors(model: nn.Module, materialize: Materialize = in_place) -> Iterator[tuple[str, Tensor]]:
    """Names and weights as the plain model has them, adapters merged; each tensor is whole until
    the next is asked for.
    """
    seen: set[int] = set()
    for path, module in model.named_modules(remove_duplicate=False):
        prefix = f"{path}." if path else ""
        if is_lora_layer(module):
            base = module.get_base_layer()
            seen |= {id(parameter) for parameter in module.parameters()}
            with materialize(list(module.parameters())):
                yield f"{prefix}weight", merged_weight(module)
                if base.bias is not None:
                    yield f"{prefix}bias", base.bias
            continue
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                with materialize([parameter]):
                    yield prefix + name, parameter
        for name, buffer in module.named_buffers(recurse=False):
            if name not in module._non_persistent_buffers_set:
                yield prefix + name, buffer


@torch.no_grad()
def adapters(model: nn.Module, materialize: Materialize = in_place) -> Iterator[tuple[str, Tensor]]:
    """The adapters' weights alone, by the adapted model's names."""
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            with materialize([parameter]):
                yield name, parameter


def save_policy(
    policy: Policy, directory: Path, materialize: Materialize = in_place, *, writes: bool = True
) -> None:
    """A directory to go on from, which `from_pretrained` loads: the model in float32, or its
    adapters alone.

    Every rank takes part in the gathering, and the one that `writes` keeps what it sees.
    """
    if not is_adapted(policy.model):
        save_model(policy, directory, torch.float32, materialize, writes=writes)
        return
    state = _copies(adapters(policy.model, materialize), torch.float32, writes)
    if writes:
        save_adapter(policy.model, state, directory)
        policy.save_words(directory)


def save_model(
    policy: Policy,
    directory: Path,
    dtype: torch.dtype,
    materialize: Materialize = in_place,
    *,
    writes: bool = True,
) -> None:
    """A Hugging Face directory of the whole model in one dtype, adapters merged, with the
    tokenizer.
    """
    state = _copies(tensors(policy.model, materialize), dtype, writes)
    if writes:
        policy.model.save_pretrained(directory, state_dict=state)
        _set_dtype(directory / "config.json", dtype)
        policy.save_words(directory)


def _copies(
    named: Iterator[tuple[str, Tensor]], dtype: torch.dtype, keep: bool
) -> dict[str, Tensor]:
    """Copies in main memory where they are kept; everywhere, the way through all of them."""
    return {name: tensor.detach().to("cpu", dtype, copy=True) for name, tensor in named if keep}


def _set_dtype(config: Path, dtype: torch.dtype) -> None:
    """Let a saved configuration name the dtype of the weights beside it, for those who load with
    `dtype="auto"`.
    """
    content = json.loads(config.read_text(encoding="utf-8"))
    content["dtype"] = str(dtype).removeprefix("torch.")
    config.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
