"""Embeddings that a sampler fed to its model, kept in Ray's object store for the learner.

The loop passes handles. Batches are split among ranks by length, so the rank that trains on a
rollout may not be the one that sampled it; each rank fetches the embeddings of its own rollouts,
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
    """A handle that any process of the cluster can resolve."""

    ref: ray.ObjectRef

    def __call__(self) -> Tensor:
        """Fetch the embeddings into this process."""
        embedding: Tensor = ray.get(self.ref)
        return embedding


def stored(rollouts: Sequence[Rollout]) -> list[Rollout]:
    """The rollouts with handles instead of embeddings; Ray frees an object with its last handle."""
    return [
        rollout
        if rollout.soft is None
        else replace(
            rollout, soft=replace(rollout.soft, fed=StoredObject(ray.put(rollout.soft.fed())))
        )
        for rollout in rollouts
    ]
