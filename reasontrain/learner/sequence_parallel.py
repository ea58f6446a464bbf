"""Sequence parallelism by DeepSpeed's Ulysses attention: ranks share each micro-batch's positions.

Jacobs et al. 2023 (arXiv 2309.14509). Every rank runs the trunk on its own columns of all rows. In
front of attention, an all-to-all exchange gives each rank whole rows of a part of the heads; a
second one behind it gives the columns back. A rank's loss is that of its own columns, and autograd
runs the exchanges backwards, so the sum of gradients over all ranks is that of the whole loss: for
the engine these ranks are like any others.
"""

from __future__ import annotations

from typing import Self

import torch.distributed as dist
from deepspeed.sequence.layer import DistributedAttention
from jaxtyping import Float
from torch import Tensor

from reasontrain.models.varlen import Attend

BATCH, COLUMNS, HEADS = range(3)
"""Dimensions of the tensors that DeepSpeed exchanges, [R, T, H, d]."""


class UlyssesGroup:
    """The implementation of `SequenceGroup`: neighbouring ranks of the learner."""

    def __init__(self, group: dist.ProcessGroup) -> None:
        self.size = group.size()
        self._exchange = DistributedAttention(
            _on_whole_rows, group, scatter_idx=HEADS, gather_idx=COLUMNS
        )

    @classmethod
    def of_this_rank(cls, size: int) -> Self:
        """The group of `size` neighbouring ranks that this rank belongs to; all ranks call it."""
        num_ranks = dist.get_world_size()
        assert num_ranks % size == 0, "the recipe refuses ranks that do not divide into groups"
        # Every rank takes part in the creation of every group.
        groups = [
            dist.new_group(list(range(first, first + size))) for first in range(0, num_ranks, size)
        ]
        return cls(groups[dist.get_rank() // size])

    def attention(
        self,
        query: Float[Tensor, "R H t d"],
        key: Float[Tensor, "R K t d"],
        value: Float[Tensor, "R K t _"],
        attend: Attend,
    ) -> Float[Tensor, "R t H _"]:
        """See `SequenceGroup`."""
        # With fewer key heads than ranks, several ranks get the same one.
        copies = max(1, self.size // key.shape[1])
        if copies > 1:
            key, value = (part.repeat_interleave(copies, 1) for part in (key, value))
        columns = [part.transpose(1, 2) for part in (query, key, value)]
        output: Tensor = self._exchange(*columns, BATCH, None, attend)
        return output


def _on_whole_rows(
    query: Float[Tensor, "R T h d"],
    key: Float[Tensor, "R T k d"],
    value: Float[Tensor, "R T k _"],
    attend: Attend,
) -> Float[Tensor, "R T h _"]:
    """Attention of a part of the heads, as DeepSpeed calls it."""
    return attend(*(part.transpose(1, 2) for part in (query, key, value)))
