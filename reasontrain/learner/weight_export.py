"""A model's weights tensor by tensor, whole and with adapters merged; and model directories.

The caller's `materialize` makes weights whole that ranks share.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn

from reasontrain.learner.lora import is_adapted, is_lora_layer, merged_weight, save_adapter
from reasontrain.models import Policy, open_to_readers

Materialize = Callable[[Sequence[nn.Parameter]], AbstractContextManager[object]]
"""Make these parameters whole within a block; every rank enters it together."""


def in_place(parameters: Sequence[nn.Parameter]) -> AbstractContextManager[object]:
    """The `materialize` of parameters that are whole already."""
    return nullcontext(parameters)


@torch.no_grad()
def tensors(model: nn.Module, materialize: Materialize = in_place) -> Iterator[tuple[str, Tensor]]:
    """Names and weights as the plain model has them, adapters merged.

    Each tensor is whole until the next one is requested.
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
    """Write a checkpoint that `from_pretrained` loads: the model in float32, or its adapters.

    Args:
        policy: the model.
        directory: where to write.
        materialize: makes parameters whole; every rank takes part.
        writes: True on the rank that keeps what it sees and writes it.
    """
    if not is_adapted(policy.model):
        save_model(policy, directory, torch.float32, materialize, writes=writes)
        return
    state = _copies(adapters(policy.model, materialize), torch.float32, writes)
    if writes:
        save_adapter(policy.model, state, directory)
        policy.save_tokenizer(directory)


def save_model(
    policy: Policy,
    directory: Path,
    dtype: torch.dtype,
    materialize: Materialize = in_place,
    *,
    writes: bool = True,
) -> None:
    """Write a Hugging Face directory of the whole model, adapters merged, with the tokenizer.

    Args:
        policy: the model.
        directory: where to write.
        dtype: of all floating-point weights.
        materialize: makes parameters whole; every rank takes part.
        writes: True on the rank that keeps what it sees and writes it.
    """
    state = _copies(tensors(policy.model, materialize), dtype, writes)
    if writes:
        policy.model.save_pretrained(directory, state_dict=state)
        open_to_readers(directory)
        _set_dtype(directory / "config.json", dtype)
        policy.save_tokenizer(directory)


def _copies(
    named: Iterator[tuple[str, Tensor]], dtype: torch.dtype, keep: bool
) -> dict[str, Tensor]:
    """Copies in main memory if `keep`; every rank walks through all tensors in either case."""
    return {name: tensor.detach().to("cpu", dtype, copy=True) for name, tensor in named if keep}


def _set_dtype(config: Path, dtype: torch.dtype) -> None:
    """Set the dtype in a saved configuration to that of the weights, for `dtype="auto"`."""
    content = json.loads(config.read_text(encoding="utf-8"))
    content["dtype"] = str(dtype).removeprefix("torch.")
    config.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
