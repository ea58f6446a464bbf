"""A model as one module, from ids to whatever is asked of its hidden states and head; and models that are only compared with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from reasontrain.data.micro import MicroBatch
from reasontrain.models import Policy
from reasontrain.vocab import Head

Work = Callable[[Float[Tensor, "N D"], Head], Mapping[str, Tensor]]
"""What is wanted of hidden rows and the head: named numbers, computed while the weights are at hand."""


class Scorer(nn.Module):
    """The policy's trunk, the choice of rows, and the work on them, in one forward.

    Where ranks hold parts of the weights, the head is whole only inside the forward of the module that an engine wraps: so the
    loss belongs here.
    """

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.model = policy.model
        self.policy = policy

    def forward(
        self, ids_RT: Int[Tensor, "R T"], position_RT: Int[Tensor, "R T"], row_N: Int[Tensor, " N"], work: Work
    ) -> Mapping[str, Tensor]:
        """`work` on the hidden states at flat rows of [R, T] ids."""
        hidden = self.policy.hidden(ids_RT, position=position_RT)
        return work(hidden.flatten(0, 1)[row_N], self.policy.head)


@runtime_checkable
class Frozen(Protocol):
    """A teacher or a reference: its hidden states at the rows of a micro-batch, and its head."""

    def hidden(self, micro: MicroBatch, row_N: Int[Tensor, " N"]) -> Float[Tensor, "N D"]:
        """Hidden states at flat rows, without gradient."""
        ...

    def head(self) -> AbstractContextManager[Head]:
        """The head, whole within the block."""
        ...


class WholeModel:
    """A frozen model that lies whole in this process."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy

    @torch.no_grad()
    def hidden(self, micro: MicroBatch, row_N: Int[Tensor, " N"]) -> Float[Tensor, "N D"]:
        """Hidden states at flat rows."""
        device = self.policy.device
        hidden = self.policy.hidden(micro.ids_RT.to(device), position=micro.position_RT.to(device))
        return hidden.flatten(0, 1)[row_N.to(device)]

    def head(self) -> AbstractContextManager[Head]:
        """The head as it is."""
        return nullcontext(self.policy.head)
