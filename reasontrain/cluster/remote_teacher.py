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

    def hidden(self, micro: MicroBatch, row_N: Int[Tensor, " N"]) -> Float[Tensor, "N D"]:
        """Hidden states [N, D] at N flattened positions of a micro-batch."""
        hidden_ND: Tensor = ray.get(
            self.actor.hidden.remote(micro.ids_RT, micro.position_RT, micro.cu_seq_lens, row_N)
        )
        return hidden_ND.to(self.device)

    @contextmanager
    def head(self) -> Iterator[Head]:
        """The local copy of the head."""
        yield self._head
