"""A teacher in another process, as a learner rank sees it."""

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
    """Hidden states come from the teacher's process, one micro-batch at a time; the head lies here."""

    def __init__(self, actor: ray.actor.ActorHandle) -> None:
        self.actor = actor
        self.device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
        head: Head = ray.get(actor.head.remote())
        self._head = head.to(self.device)

    def hidden(self, micro: MicroBatch, row_N: Int[Tensor, " N"]) -> Float[Tensor, "N D"]:
        """Hidden states at flat rows."""
        found: Tensor = ray.get(self.actor.hidden.remote(micro.ids_RT, micro.position_RT, row_N))
        return found.to(self.device)

    @contextmanager
    def head(self) -> Iterator[Head]:
        """The head as it is."""
        yield self._head
