"""The place of each weight, taken as soon as the weight is read: a device, or a rank's part."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from transformers import PreTrainedModel

from reasontrain.models.weights import DTYPES, is_finite

SEQUENTIAL = "HF_DEACTIVATE_ASYNC_LOAD"
"""Environment variable without which transformers reads ahead, up to the whole model."""
READ = "_is_hf_initialized"
"""The attribute by which transformers marks the weights that it has read."""


class Placement:
    """Weights on one device, in one dtype. Subclasses divide them among ranks.

    Attributes:
        device: the device on which they are used.
        dtype: the dtype in which they are read and kept.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device = device
        self.dtype = dtype

    @property
    def is_where_read(self) -> bool:
        """True if weights stay where they are read, in main memory."""
        return self.device.type == "cpu"

    def place(self, parameter: nn.Parameter) -> nn.Parameter:
        """Return a weight where it stays; it is the same object unless it changes the device."""
        if parameter.device.type == self.device.type:
            return parameter
        moved = nn.Parameter(parameter.data.to(self.device), requires_grad=parameter.requires_grad)
        vars(moved).update(vars(parameter))
        return moved

    def whole(self, parameters: Sequence[nn.Parameter]) -> AbstractContextManager[object]:
        """Hold these weights whole within a block that all ranks enter."""
        return nullcontext()

    def whole_in_forward(self, model: PreTrainedModel) -> AbstractContextManager[object]:
        """Hold embeddings and head whole within a block, and other weights while they are used.

        All ranks enter it and run the same forward passes.
        """
        return nullcontext()


class Placed:
    """The weights that were placed in a block of `placing`."""

    def __init__(self) -> None:
        self._parameters: dict[int, nn.Parameter] = {}
        self._wrong: set[int] = set()

    def __contains__(self, parameter: nn.Parameter) -> bool:
        return id(parameter) in self._parameters

    def add(self, parameter: nn.Parameter, *, is_finite: bool) -> None:
        """Note a weight in its place."""
        self._parameters[id(parameter)] = parameter
        if not is_finite:
            self._wrong.add(id(parameter))

    def not_finite(self, model: nn.Module) -> list[str]:
        """The names of weights that hold NaN or infinity."""
        return [name for name, each in model.named_parameters() if id(each) in self._wrong]


@contextmanager
def placing(placement: Placement) -> Iterator[Placed]:
    """A block in which each weight that transformers reads is placed before the next is read.

    Tensors that are no weights, such as the codes of a quantisation, stay as they are read.
    """
    placed = Placed()
    if placement.is_where_read:
        yield placed
        return

    def place(module: nn.Module, name: str, parameter: nn.Parameter) -> nn.Parameter:
        # transformers marks what it has read. Before, the model is on the meta device.
        is_read = vars(parameter).get(READ, False) and not parameter.is_meta
        if not is_read or parameter in placed or parameter.dtype not in DTYPES:
            return parameter
        is_right = is_finite(parameter.data)
        result = placement.place(parameter)
        placed.add(result, is_finite=is_right)
        return result

    # torch's annotation leaves out that a hook may return another parameter.
    handle = register_module_parameter_registration_hook(place)  # type: ignore[arg-type]
    before = os.environ.get(SEQUENTIAL)
    os.environ[SEQUENTIAL] = "1"
    try:
        with torch.no_grad():
            yield placed
    finally:
        handle.remove()
        if before is None:
            del os.environ[SEQUENTIAL]
        else:
            os.environ[SEQUENTIAL] = before
