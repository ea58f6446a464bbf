"""An earlier version of the policy, for the evidence `history_logp`: a frozen copy, adapters
switched off, a moving average.
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
from reasontrain.learner.policy_module import FrozenModel, HeadComputation, UnshardedModel
from reasontrain.models import Policy

HISTORY_FILE = "history.safetensors"
Forward = Callable[[MicroBatch, Int[Tensor, " N"], HeadComputation], Mapping[str, Tensor]]
"""The policy's own forward, as its learner does it."""


class History:
    """An earlier version of the policy, as a learner asks it.

    This one is none; one that does not change has nothing to keep.
    """

    def measure(
        self, forward: Forward, micro: MicroBatch, row_N: Int[Tensor, " N"], work: HeadComputation
    ) -> Mapping[str, Tensor]:
        """`work` on the earlier hidden states at these rows, and the earlier head; every rank asks
        at the same time.
        """
        raise AssertionError("a run that needs history_logp is given a history")

    def follow(self, named: Iterator[tuple[str, Tensor]]) -> None:
        """The policy has made a step, and these are its weights; who takes one takes all, since
        ranks gather them together.
        """

    def save(self, directory: Path) -> None:
        """Write what a resumed run could not make again."""

    def restore(self, directory: Path) -> None:
        """Go on from what `save` wrote."""


class FrozenHistory(History):
    """A model that stays as it is: the start weights or a past checkpoint, read again from where
    they lie by a resumed run.
    """

    def __init__(self, model: FrozenModel) -> None:
        self.model = model

    def measure(
        self, forward: Forward, micro: MicroBatch, row_N: Int[Tensor, " N"], work: HeadComputation
    ) -> Mapping[str, Tensor]:
        """By a forward of its own."""
        hidden_ND = self.model.hidden(micro, row_N)
        with self.model.head() as head:
            return work(hidden_ND, head)


class AdaptersOffHistory(History):
    """The policy without its adapters: the start weights, without a copy of them."""

    def __init__(self, model: nn.Module) -> None:
        self.adapted = model

    def measure(
        self, forward: Forward, micro: MicroBatch, row_N: Int[Tensor, " N"], work: HeadComputation
    ) -> Mapping[str, Tensor]:
        """By the policy's forward, inside of which ranks find its weights whole."""
        with switched_off(self.adapted):
            return forward(micro, row_N, work)


class MovingAverageHistory(FrozenHistory):
    """theta_history <- a theta_history + (1 - a) theta, in float32: bfloat16 would lose what is
    below 2^-9 of a weight.

    The policy's weights come tensor by tensor, whole and with adapters merged, so any number of
    ranks at any ZeRO stage keeps the same average, each a copy of it.
    """

    def __init__(self, policy: Policy, decay: float) -> None:
        """`policy` holds the start weights, in float32, and becomes the average."""
        super().__init__(UnshardedModel(policy))
        self.decay, self.weights = decay, dict(policy.model.named_parameters())
        assert all(weight.dtype == torch.float32 for weight in self.weights.values()), (
            "an average is kept in float32"
        )

    @torch.no_grad()
    def follow(self, named: Iterator[tuple[str, Tensor]]) -> None:
        """One update."""
        for name, tensor in named:
            if name in self.weights:  # else a buffer
                self.weights[name].lerp_(tensor.detach().to(self.weights[name]), 1 - self.decay)

    def save(self, directory: Path) -> None:
        """The average, in one file."""
        save_file(
            {name: weight.detach().cpu().contiguous() for name, weight in self.weights.items()},
            directory / HISTORY_FILE,
        )

    @torch.no_grad()
    def restore(self, directory: Path) -> None:
        """The average as it was."""
        for name, tensor in load_file(directory / HISTORY_FILE).items():
            self.weights[name].copy_(tensor)


@contextmanager
def switched_off(model: nn.Module) -> Iterator[None]:
    """The model without its adapters; what is trained is not changed by it."""
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
