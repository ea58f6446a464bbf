"""The policy as one module, from ids to a computation on its hidden states; and frozen models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd import graph

from reasontrain.data.micro_batches import MicroBatch, SoftInputs
from reasontrain.models import Policy
from reasontrain.vocab import Head

HeadComputation = Callable[[Float[Tensor, "N D"], Head], Mapping[str, Tensor]]
"""A computation on flat hidden states and the head, run while the weights are whole.

It returns named tensors.
"""


def hidden_at(
    policy: Policy, micro: MicroBatch, position_N: Int[Tensor, " N"]
) -> Float[Tensor, "N D"]:
    """The hidden states of a micro-batch of ids at flat positions.

    If ranks share its rows, each runs the trunk on its own columns, where its positions lie.
    """
    ids_RT, position_RT = micro.ids_RT, micro.position_RT
    # A model that no ranks share runs on whole rows, such as a teacher in its own process.
    group = None if micro.shard is None else policy.sequence_group
    if micro.shard is not None and group is not None:
        width = ids_RT.shape[1]
        columns = micro.shard.columns(width)
        ids_RT, position_RT = ids_RT[:, columns], position_RT[:, columns]
        position_N = micro.shard.place(position_N, width)
    device = policy.device
    hidden_RTD = policy.hidden(
        ids_RT.to(device),
        position=position_RT.to(device),
        cu_seq_lens=micro.cu_seq_lens,
        images=micro.images,
        sequence_group=group,
    )
    return hidden_RTD.flatten(0, 1)[position_N.to(device)]


class PolicyModule(nn.Module):
    """The policy's trunk, the choice of positions, and a computation on them, in one forward.

    If ranks hold parts of the weights, the head is whole only inside the forward of the module
    that an engine wraps: so the loss is computed here.
    """

    def __init__(self, policy: Policy, *, offload: bool = False) -> None:
        """Wrap a policy.

        Args:
            policy: the policy.
            offload: keep what the trunk saves for its backward pass in main memory: the inputs of
                its layers, because the policy recomputes what is inside them.
        """
        super().__init__()
        self.model = policy.model
        self.policy = policy
        self.offload = offload

    def forward(
        self, micro: MicroBatch, position_N: Int[Tensor, " N"], compute: HeadComputation
    ) -> Mapping[str, Tensor]:
        """Run `compute` on the hidden states at flat positions of a micro-batch."""
        with self._saved_tensors():
            hidden_ND = self._hidden(micro, position_N)
        return compute(hidden_ND, self.policy.head)

    def _saved_tensors(self) -> AbstractContextManager[object]:
        """A block whose operations save tensors in main memory, if that is set."""
        if not self.offload:
            return nullcontext()
        return graph.save_on_cpu(pin_memory=self.policy.device.type == "cuda")

    def _hidden(self, micro: MicroBatch, position_N: Int[Tensor, " N"]) -> Float[Tensor, "N D"]:
        """The hidden states of a micro-batch at flat positions."""
        if micro.soft is None:
            return hidden_at(self.policy, micro, position_N)
        device = self.policy.device
        hidden_RTD = self.policy.hidden(
            embeds=self._embeds(micro.ids_RT.to(device), micro.soft),
            position=micro.position_RT.to(device),
            cu_seq_lens=micro.cu_seq_lens,
        )
        return hidden_RTD.flatten(0, 1)[position_N.to(device)]

    def _embeds(self, ids_RT: Int[Tensor, "R T"], soft: SoftInputs) -> Float[Tensor, "R T D"]:
        """Embeddings of the ids, with soft inputs in their places; no gradient reaches those."""
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
    """A teacher, reference or history: hidden states of a micro-batch, and the head."""

    def hidden(self, micro: MicroBatch, position_N: Int[Tensor, " N"]) -> Float[Tensor, "N D"]:
        """Hidden states at flat positions, without gradient."""
        ...

    def head(self) -> AbstractContextManager[Head]:
        """The head, whole within the block."""
        ...


@runtime_checkable
class RequestedModel(FrozenModel, Protocol):
    """A frozen model in another process, which computes while this one does."""

    def request(self, micro: MicroBatch, position_N: Int[Tensor, " N"]) -> None:
        """Start the forward whose result `hidden` will return."""


@runtime_checkable
class LocalModel(FrozenModel, Protocol):
    """A frozen model in this process."""

    policy: Policy


class UnshardedModel:
    """A frozen model that is whole in this process."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy

    @torch.no_grad()
    def hidden(self, micro: MicroBatch, position_N: Int[Tensor, " N"]) -> Float[Tensor, "N D"]:
        """See `FrozenModel`."""
        return hidden_at(self.policy, micro, position_N)

    def head(self) -> AbstractContextManager[Head]:
        """See `FrozenModel`."""
        return nullcontext(self.policy.head)
