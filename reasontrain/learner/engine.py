"""The engine of a learner: forward, backward and update of a policy, on one process or many ranks.

`PlainEngine` is plain PyTorch in one process. `zero.ZeroEngine` is one rank of DeepSpeed, and must
give the same gradients. Everything else about learning is in `policy_learner`, once for both.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor, nn

from reasontrain.data.micro_batches import MicroBatch
from reasontrain.learner import optimizer_state, weight_export
from reasontrain.learner.optimizer import Optimizer, clip_gradients
from reasontrain.learner.optimizer_state import HeldFragment
from reasontrain.learner.policy_module import HeadComputation, PolicyModule
from reasontrain.metrics.timing import Stopwatch
from reasontrain.models import Policy
from reasontrain.recipe import LearnSettings

Progress = Mapping[str, int]
"""Counters of a learner that a checkpoint keeps, by name."""


@runtime_checkable
class TrainingEngine(Protocol):
    """A trainable policy with its optimiser.

    Every method is a collective operation: all ranks call it together, in the same order.

    Attributes:
        policy: the model that is trained.
        timer: the stopwatch of a step; seconds spent waiting for other ranks are its part `wait`.
        rank: this process's number among `num_ranks`.
        num_ranks: how many processes share each optimiser step.
        runs_empty_micro_batches: True if a micro-batch without a loss must still run forward and
            backward, because other ranks' collectives would wait for this rank.
    """

    policy: Policy
    timer: Stopwatch
    rank: int
    num_ranks: int
    runs_empty_micro_batches: bool

    def forward(
        self, micro: MicroBatch, position_N: Int[Tensor, " N"], compute: HeadComputation
    ) -> Mapping[str, Tensor]:
        """Run the trunk, and `compute` on its flat hidden states at `position_N` and the head."""
        ...

    def backward(self, loss: Float[Tensor, ""]) -> None:
        """Add the gradient of one micro-batch to that of the update."""
        ...

    def update(self, lr_share: float) -> float:
        """Sum gradients over ranks, clip, step at this share of the peak rate, and clear them.

        A gradient that is not finite changes no weight. Returns the norm before clipping.
        """
        ...

    def all_reduce_sum(self, numbers: Tensor) -> Tensor:
        """Return the sum of these numbers over all ranks, on the CPU if there are several."""
        ...

    def materialize(self, parameters: Sequence[nn.Parameter]) -> AbstractContextManager[object]:
        """Hold these parameters whole on this rank within the block."""
        ...

    def materialize_policy(self) -> AbstractContextManager[None]:
        """Hold all weights whole within the block, for forwards that bypass the engine."""
        ...

    def save(self, directory: Path, progress: Progress) -> None:
        """Write trained weights, the optimiser's state and these counters."""
        ...

    def restore(self, directory: Path) -> Progress:
        """Read what any engine has written, on any number of ranks; return the counters."""
        ...

    def barrier(self) -> None:
        """Wait until all ranks are here."""
        ...


class PlainEngine:
    """One process, plain PyTorch: the reference that every other engine must equal."""

    rank = 0
    num_ranks = 1
    runs_empty_micro_batches = False

    def __init__(self, policy: Policy, settings: LearnSettings) -> None:
        self.policy = policy
        self.timer = Stopwatch(policy.device)
        self.policy_module = PolicyModule(policy, offload=settings.activation_offload)
        self.optimizer = Optimizer(policy.model, settings)
        self.max_grad_norm = settings.max_grad_norm

    def forward(
        self, micro: MicroBatch, position_N: Int[Tensor, " N"], compute: HeadComputation
    ) -> Mapping[str, Tensor]:
        """See `TrainingEngine`."""
        return self.policy_module(micro, position_N, compute)

    def backward(self, loss: Float[Tensor, ""]) -> None:
        """See `TrainingEngine`."""
        loss.backward()

    def update(self, lr_share: float) -> float:
        """See `TrainingEngine`; if nothing was selected there is no gradient, and nothing moves."""
        norm = float(clip_gradients(self.policy.model, self.max_grad_norm))
        if math.isfinite(norm):
            self.optimizer.step(lr_share)
        self.optimizer.zero_grad()
        return norm

    def all_reduce_sum(self, numbers: Tensor) -> Tensor:
        """See `TrainingEngine`."""
        return numbers

    def materialize(self, parameters: Sequence[nn.Parameter]) -> AbstractContextManager[object]:
        """See `TrainingEngine`; they are whole."""
        return weight_export.in_place(parameters)

    def materialize_policy(self) -> AbstractContextManager[None]:
        """See `TrainingEngine`; they are whole."""
        return nullcontext()

    def save(self, directory: Path, progress: Progress) -> None:
        """See `TrainingEngine`."""
        optimizer_state.write(directory, 0, self._fragments())
        optimizer_state.write_layout(directory, {"num_ranks": 1, "stage": None}, progress)

    def restore(self, directory: Path) -> Progress:
        """See `TrainingEngine`."""
        _, progress = optimizer_state.read_layout(directory)
        sizes = {fragment.name: fragment.numel for fragment in self._fragments()}
        optimizer_state.load(directory, self._fragments(), sizes)
        return progress

    def _fragments(self) -> Iterator[HeldFragment]:
        """All trained parameters."""
        names = {parameter: name for name, parameter in self.policy.model.named_parameters()}
        for part in self.optimizer.parts:
            for parameter in (p for group in part.param_groups for p in group["params"]):
                yield HeldFragment(
                    name=names[parameter],
                    start=0,
                    numel=parameter.numel(),
                    held=parameter,
                    offset=0,
                    state=part.state[parameter],
                )

    def barrier(self) -> None:
        """See `TrainingEngine`; there is nobody to wait for."""
