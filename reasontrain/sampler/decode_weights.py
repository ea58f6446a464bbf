"""Weights in the dtype of matrix products for as long as a policy decodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel

from reasontrain.models import Policy

_others: WeakKeyDictionary[PreTrainedModel, frozenset[str]] = WeakKeyDictionary()
"""Parameters outside of linear layers that autocast rounds: routers of mixtures, for example."""


@contextmanager
def rounded_weights(policy: Policy) -> Iterator[None]:
    """Round the weights that autocast rounds once, and use the copies in the block.

    Autocast would round each of them again in every decode step: its cache holds only weights that
    require a gradient, and none in inference mode. The products are the same. The copies are freed
    with the block, because the learner needs the memory and changes the weights in place.
    """
    replaced: list[tuple[nn.Module, str, nn.Parameter]] = []
    if policy.dtype != torch.float32:
        if policy.model not in _others:
            _others[policy.model] = _rounded_outside_linear(policy)
        output = policy.model.get_output_embeddings()  # `Head` rounds it itself
        replaced = [
            (module, name, parameter)
            for path, module in policy.model.named_modules()
            if module is not output
            for name, parameter in module.named_parameters(recurse=False)
            if parameter.dtype == torch.float32
            and (isinstance(module, nn.Linear) or f"{path}.{name}" in _others[policy.model])
        ]
    # Parameters are replaced, not their data: engines keep hooks on the originals.
    copies = {
        id(parameter): nn.Parameter(parameter.detach().to(policy.dtype), requires_grad=False)
        for _, _, parameter in replaced
    }
    try:
        for module, name, parameter in replaced:
            setattr(module, name, copies[id(parameter)])
        yield
    finally:
        for module, name, parameter in replaced:
            setattr(module, name, parameter)


@torch.no_grad()
def _rounded_outside_linear(policy: Policy) -> frozenset[str]:
    """The names of parameters outside of linear layers that one forward pass rounds."""
    linear = {
        f"{path}.{name}"
        for path, module in policy.model.named_modules()
        if isinstance(module, nn.Linear)
        for name, _ in module.named_parameters(recurse=False)
    }
    others = {
        parameter.data_ptr(): name
        for name, parameter in policy.model.named_parameters()
        if name not in linear
    }
    with _Conversions(others, policy.dtype) as conversions:
        policy.hidden(torch.zeros(1, 2, dtype=torch.long, device=policy.device))
    return frozenset(conversions.names)


class _Conversions(TorchDispatchMode):
    """Collects the names of tensors that are converted to a dtype.

    Attributes:
        names: the names of those that were.
    """

    def __init__(self, name_of: Mapping[int, str], dtype: torch.dtype) -> None:
        """Prepare to watch.

        Args:
            name_of: names by the address of a tensor's first number.
            dtype: the dtype that counts.
        """
        super().__init__()
        self.names: set[str] = set()
        self._name_of = name_of
        self._dtype = dtype

    def __torch_dispatch__(
        self,
        function: Callable[..., object],
        types: Sequence[type],
        arguments: tuple[object, ...] = (),
        options: Mapping[str, object] | None = None,
    ) -> object:
        """Run an operation, and note its argument if it is a conversion."""
        result = function(*arguments, **(options or {}))
        if function is torch.ops.aten._to_copy.default:
            source = arguments[0]
            assert isinstance(source, Tensor), "a conversion is of a tensor"
            assert isinstance(result, Tensor), "a conversion gives a tensor"
            if result.dtype == self._dtype and source.data_ptr() in self._name_of:
                self.names.add(self._name_of[source.data_ptr()])
        return result
