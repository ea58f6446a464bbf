"""A teacher in another process, with the interface that a learner rank expects."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import ray
import torch
from jaxtyping import Float, Int
from torch import Tensor

from reasontrain.data.micro_batches import MicroBatch
from reasontrain.vocab import Head


class RemoteTeacher:
    """A teacher in another process: hidden states are fetched, the head is a local copy."""

    def __init__(self, actor: ray.actor.ActorHandle, device: torch.device) -> None:
        """Copy the teacher's head to `device`, that of the policy which it is compared with."""
        self.actor = actor
        self.device = device
        head: Head = ray.get(actor.head.remote())
        self._head = head.to(self.device)
        self._requested: list[tuple[MicroBatch, Int[Tensor, " N"], ray.ObjectRef]] = []

    def request(self, micro: MicroBatch, position_N: Int[Tensor, " N"]) -> None:
        """Start the forward that `hidden` will return, unless it has been requested already."""
        if self._index(micro, position_N) is None:
            ref = self.actor.hidden.remote(
                micro.ids_RT, micro.position_RT, micro.cu_seq_lens, position_N
            )
            self._requested.append((micro, position_N, ref))

    def hidden(self, micro: MicroBatch, position_N: Int[Tensor, " N"]) -> Float[Tensor, "N D"]:
        """Hidden states [N, D] at N flattened positions of a micro-batch."""
        self.request(micro, position_N)
        index = self._index(micro, position_N)
        assert index is not None, "it has been requested"
        ref = self._requested[index][2]
        # Requests before it belong to a step that ended early.
        del self._requested[: index + 1]
        hidden_ND: Tensor = ray.get(ref)
        return hidden_ND.to(self.device)

    def _index(self, micro: MicroBatch, position_N: Int[Tensor, " N"]) -> int | None:
        """The place of a request for these positions, or None if there is none."""
        matches = (
            index
            for index, (other, other_N, _) in enumerate(self._requested)
            if other is micro and torch.equal(other_N, position_N)
        )
        return next(matches, None)

    @contextmanager
    def head(self) -> Iterator[Head]:
        """The local copy of the head."""
        yield self._head
