"""Embeddings that a process fed to its model, kept in Ray's object store for whoever learns from
them.

The loop sees a handle. The rank that trains a rollout is not always the one that sampled it, since
its share of a batch is a function of lengths: so each rank fetches what its own rollouts were fed,
micro-batch by micro-batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import ray
from torch import Tensor

from reasontrain.types import Rollout


@dataclass(frozen=True)
class StoredObject:
    """A handle that any process can follow."""

    ref: ray.ObjectRef

    def __call__(self) -> Tensor:
        """The embeddings, in this process."""
        found: Tensor = ray.get(self.ref)
        return found


def stored(rollouts: Sequence[Rollout]) -> list[Rollout]:
    """The rollouts with handles in place of embeddings; they are freed when the last handle is."""
    return [
        rollout
        if rollout.soft is None
        else replace(
            rollout, soft=replace(rollout.soft, fed=StoredObject(ray.put(rollout.soft.fed())))
        )
        for rollout in rollouts
    ]
