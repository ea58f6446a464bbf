"""Models whose weights the ranks divide while they are read, as ZeRO stage 3 keeps them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import deepspeed
import torch
from torch import nn
from transformers import PreTrainedModel

from reasontrain.learner.deepspeed_settings import configuration
from reasontrain.learner.zero import materialized
from reasontrain.models import Placement
from reasontrain.recipe import LearnSettings, Zero


class Partition(Placement):
    """This rank's part of each weight, in the dtype of the products.

    No weight is sent: every rank reads the files, whose pages the ranks of a node share, and keeps
    its part of one tensor before it reads the next.
    """

    def __init__(
        self, device: torch.device, dtype: torch.dtype, zero: Zero, settings: LearnSettings
    ) -> None:
        """Prepare to divide weights.

        Args:
            device: the device on which they are used.
            dtype: the dtype in which they are read and kept.
            zero: where the parts are kept.
            settings: how a batch is learned from.
        """
        super().__init__(device, dtype)
        config = configuration(zero, settings, bf16=dtype == torch.bfloat16, device=device)
        # With a module, even an empty one, DeepSpeed exchanges `torch.nn.functional.linear` for one
        # that does not keep gathered weights until the backward pass.
        self._init = deepspeed.zero.Init(module=nn.Module(), config_dict_or_path=config)

    @property
    def is_where_read(self) -> bool:
        """See `Placement`."""
        return False

    def place(self, parameter: nn.Parameter) -> nn.Parameter:
        """See `Placement`; the tensor of the parameter is empty afterwards."""
        parameter.data = parameter.data.to(self.device, self.dtype)
        # DeepSpeed's public ways to here send each weight from rank 0 as well.
        self._init._convert_to_deepspeed_param(parameter)
        vars(parameter)["partition"]()
        return parameter

    def whole(self, parameters: Sequence[nn.Parameter]) -> AbstractContextManager[object]:
        """See `Placement`."""
        return materialized(parameters)

    @contextmanager
    def whole_in_forward(self, model: PreTrainedModel) -> Iterator[None]:
        """See `Placement`; by hooks of its own, before DeepSpeed's engine has any."""
        ends = [model.get_input_embeddings(), model.get_output_embeddings()]
        handles = []
        for module in model.modules():
            divided = [p for p in module.parameters(recurse=False) if is_partitioned(p)]
            if divided:
                gathering = _Gathering(divided)
                handles.append(module.register_forward_pre_hook(gathering.gather))
                handles.append(module.register_forward_hook(gathering.release, always_call=True))
        try:
            with torch.no_grad(), materialized([p for end in ends for p in end.parameters()]):
                yield
        finally:
            for handle in handles:
                handle.remove()


class _Gathering:
    """Hooks that make a module's own weights whole for its forward pass."""

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.parameters = parameters
        self._gathered: list[nn.Parameter] = []

    def gather(self, *_: object) -> None:
        """Gather the weights that are not whole already."""
        self._gathered = [p for p in self.parameters if not p.numel()]
        if self._gathered:
            vars(self._gathered[0])["all_gather"](param_list=self._gathered)

    def release(self, *_: object) -> None:
        """Keep the parts alone of those that were gathered."""
        if self._gathered:
            vars(self._gathered[0])["partition"](param_list=self._gathered)
        self._gathered = []


def is_partitioned(parameter: nn.Parameter) -> bool:
    """True for a weight of which ranks hold parts."""
    return "ds_id" in vars(parameter)
