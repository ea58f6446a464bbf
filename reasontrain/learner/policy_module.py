"""A model as one module, from ids to whatever is asked of its hidden states and head; and models
that are only compared with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from reasontrain.data.micro_batches import MicroBatch, SoftInputs
from reasontrain.models import Policy
from reasontrain.vocab import Head

HeadComputation = Callable[[Float[Tensor, "N D"], Head], Mapping[str, Tensor]]
"""What is wanted of hidden rows and the head: named numbers, computed while the weights are at
hand.
"""


class PolicyModule(nn.Module):
    """The policy's trunk, the choice of rows, and the work on them, in one forward.

    Where ranks hold parts of the weights, the head is whole only inside the forward of the module
    that an engine wraps: so the loss belongs here.
    """

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.model = policy.model
        self.policy = policy

    def forward(
        self, micro: MicroBatch, row_N: Int[Tensor, " N"], work: HeadComputation
    ) -> Mapping[str, Tensor]:
        """`work` on the hidden states at flat rows of a micro-batch."""
        device = self.policy.device
        ids_RT, position_RT = micro.ids_RT.to(device), micro.position_RT.to(device)
        if micro.soft is None:
            hidden = self.policy.hidden(ids_RT, position=position_RT, images=micro.images)
        else:
            hidden = self.policy.hidden(
                embeds=self._embeds(ids_RT, micro.soft), position=position_RT
            )
        return work(hidden.flatten(0, 1)[row_N.to(device)], self.policy.head)

    def _embeds(self, ids_RT: Int[Tensor, "R T"], soft: SoftInputs) -> Float[Tensor, "R T D"]:
        """The embeddings of the ids, with what was fed in their place; no gradient reaches that."""
        embeds_RTD = self.policy.embed(ids_RT)
        if not len(soft.place_M):
            return embeds_RTD
        value_MD = soft.value_MD.to(embeds_RTD)
        return (
            embeds_RTD.flatten(0, 1)
            .index_copy(0, soft.place_M.to(ids_RT.device), value_MD)
            .view_as(embeds_RTD)
        )


@runtime_checkable
class FrozenModel(Protocol):
    """A teacher or a reference: its hidden states at the rows of a micro-batch, and its head."""

    def hidden(self, micro: MicroBatch, row_N: Int[Tensor, " N"]) -> Float[Tensor, "N D"]:
        """Hidden states at flat rows, without gradient."""
        ...

    def head(self) -> AbstractContextManager[Head]:
        """The head, whole within the block."""
        ...


class UnshardedModel:
    """A frozen model that lies whole in this process."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy

    @torch.no_grad()
    def hidden(self, micro: MicroBatch, row_N: Int[Tensor, " N"]) -> Float[Tensor, "N D"]:
        """Hidden states at flat rows."""
        device = self.policy.device
        hidden = self.policy.hidden(
            micro.ids_RT.to(device), position=micro.position_RT.to(device), images=micro.images
        )
        return hidden.flatten(0, 1)[row_N.to(device)]

    def head(self) -> AbstractContextManager[Head]:
        """The head as it is."""
        return nullcontext(self.policy.head)
