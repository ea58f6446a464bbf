"""An earlier version of the policy, for the evidence `history_logp`.

It is a frozen copy, the policy with its adapters switched off, or a moving average.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from jaxtyping import Int
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from reasontrain.data.micro_batches import MicroBatch
from reasontrain.learner.lora import is_lora_layer
from reasontrain.learner.policy_module import (
    FrozenModel,
    HeadComputation,
    LocalModel,
    UnshardedModel,
)
from reasontrain.models import Policy, check_shapes, open_to_readers

HISTORY_FILE = "history.safetensors"
Forward = Callable[[MicroBatch, Int[Tensor, " N"], HeadComputation], Mapping[str, Tensor]]
"""The policy's forward, as its engine runs it."""


class History:
    """An earlier version of the policy, as observers use it.

    The base class is for runs without one. A version that does not change has nothing to save.
    """

    @property
    def policies(self) -> tuple[Policy, ...]:
        """The models that it runs, other than the policy itself."""
        return ()

    def measure(
        self,
        forward: Forward,
        micro: MicroBatch,
        position_N: Int[Tensor, " N"],
        compute: HeadComputation,
    ) -> Mapping[str, Tensor]:
        """Run `compute` on the earlier hidden states and head; every rank calls it together.

        Args:
            forward: the policy's forward, as its engine runs it.
            micro: the trunk's input.
            position_N: flat positions of the hidden states.
            compute: what is computed of them and the head.
        """
        raise AssertionError("a run that needs history_logp is given a history")

    def follow(self, named: Iterator[tuple[str, Tensor]]) -> None:
        """Take note of the policy's weights after an optimiser step.

        An implementation consumes all of them or none: ranks gather each tensor together.
        """

    def save(self, directory: Path) -> None:
        """Write state that a resumed run could not compute again."""

    def restore(self, directory: Path) -> None:
        """Read what `save` wrote."""


class FrozenHistory(History):
    """A model that does not change: the start weights or a past checkpoint.

    A resumed run reads it again from where it lies.
    """

    def __init__(self, model: FrozenModel) -> None:
        self.model = model

    @property
    def policies(self) -> tuple[Policy, ...]:
        """See `History`."""
        return (self.model.policy,) if isinstance(self.model, LocalModel) else ()

    def measure(
        self,
        forward: Forward,
        micro: MicroBatch,
        position_N: Int[Tensor, " N"],
        compute: HeadComputation,
    ) -> Mapping[str, Tensor]:
        """See `History`; by a forward of the model."""
        hidden_ND = self.model.hidden(micro, position_N)
        with self.model.head() as head:
            return compute(hidden_ND, head)


class AdaptersOffHistory(History):
    """The policy without its adapters: the start weights, without a copy of them."""

    def __init__(self, model: nn.Module) -> None:
        self.adapted = model

    def measure(
        self,
        forward: Forward,
        micro: MicroBatch,
        position_N: Int[Tensor, " N"],
        compute: HeadComputation,
    ) -> Mapping[str, Tensor]:
        """See `History`; by the policy's forward, in which its weights are whole on every rank."""
        with switched_off(self.adapted):
            return forward(micro, position_N, compute)


class MovingAverageHistory(FrozenHistory):
    """theta_history <- a theta_history + (1 - a) theta after each optimiser step, in float32.

    bfloat16 would lose changes below 2^-9 of a weight. The policy's weights come tensor by tensor,
    whole and with adapters merged, so that any number of ranks at any ZeRO stage keeps the same
    average, each a copy of it. A model of another dtype computes with the average rounded to it,
    as the policy does.
    """

    def __init__(self, policy: Policy, decay: float) -> None:
        """`policy` holds the start weights, and becomes the average."""
        super().__init__(UnshardedModel(policy))
        self.decay = decay
        self._computing = dict(policy.model.named_parameters())
        self.weights = {name: weight.detach().float() for name, weight in self._computing.items()}
        """The average; in float32, the model's own memory."""

    @torch.no_grad()
    def follow(self, named: Iterator[tuple[str, Tensor]]) -> None:
        """See `History`; one update of the average."""
        for name, tensor in named:
            if name in self.weights:  # Otherwise it is a buffer.
                self.weights[name].lerp_(tensor.detach().to(self.weights[name]), 1 - self.decay)
                self._round(name)

    def save(self, directory: Path) -> None:
        """The average, in one file."""
        save_file(
            {name: weight.detach().cpu().contiguous() for name, weight in self.weights.items()},
            directory / HISTORY_FILE,
        )
        open_to_readers(directory)

    @torch.no_grad()
    def restore(self, directory: Path) -> None:
        """The average as it was; raises UserError if the file is of another model."""
        stored = load_file(directory / HISTORY_FILE)
        check_shapes(str(directory / HISTORY_FILE), stored, self.weights)
        for name, tensor in stored.items():
            self.weights[name].copy_(tensor)
            self._round(name)

    def _round(self, name: str) -> None:
        """Give a weight of the average to a model that computes in another dtype."""
        if self._computing[name].dtype != torch.float32:
            self._computing[name].copy_(self.weights[name])


@contextmanager
def switched_off(model: nn.Module) -> Iterator[None]:
    """A block in which the model has no adapters; which parameters are trained does not change."""
    layers = [module for module in model.modules() if is_lora_layer(module)]
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)
        for parameter in trained:
            parameter.requires_grad_(True)
