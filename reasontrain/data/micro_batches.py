"""A Batch cut into micro-batches by a token budget, padded or packed; the cut can never change a
gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from reasontrain.types import Batch, Image, TokenFields, TokenKind

Layout = Literal["padded", "packed"]


@dataclass(frozen=True)
class SoftInputs:
    """Embeddings that are fed in place of tokens, and their places among the flattened ids, rising."""

    place_M: Int[Tensor, " M"]
    value_MD: Float[Tensor, "M D"]

    def at(self, place_N: Int[Tensor, " N"]) -> Float[Tensor, "N D"]:
        """Those fed at these places."""
        return self.value_MD[torch.searchsorted(self.place_M, place_N)]


@dataclass(frozen=True)
class MicroBatch:
    """What the trunk is fed for K rollouts, and where each of their tokens lies in the flat hidden
    states.

    Padded: ids [K, T], filled on the right, where causal attention cannot look from a real token.
    Packed: ids [1, L] and positions that restart, which is how transformers tells sequences apart.
    Neither needs a mask: with one, packed sequences would see each other, and padded ones would
    miss the fast path. Token t of rollout k is predicted by row `start_K[k] + t - 1` of the
    flattened hidden states. `soft` is there, if empty, wherever the step has soft chains of
    thought, so that all ranks do the same. `images` are those in the K prompts, where any prompt
    of the step has one; rows with images are not packed.
    """

    index_K: Int[Tensor, " K"]
    ids_RT: Int[Tensor, "R T"]
    position_RT: Int[Tensor, "R T"]
    start_K: Int[Tensor, " K"]
    soft: SoftInputs | None = None
    images: tuple[Image | None, ...] = ()

    def logit_positions(
        self, rollout_N: Int[Tensor, " N"], token_N: Int[Tensor, " N"]
    ) -> Int[Tensor, " N"]:
        """Flat hidden rows that predict these tokens; `rollout_N` counts within the micro-batch."""
        return self.start_K[rollout_N] + token_N - 1

    def to_layout(self, mask_BS: Bool[Tensor, "B S"]) -> Bool[Tensor, "R T"]:
        """A mask over the tokens of the batch (S wide), where this layout has them."""
        local_N, token_N = mask_BS[self.index_K].nonzero(as_tuple=True)
        found_M = torch.zeros(self.ids_RT.numel(), dtype=torch.bool)
        found_M[self.start_K[local_N] + token_N] = True
        return found_M.view(self.ids_RT.shape)


def pack_micro_batches(
    length_B: Int[Tensor, " B"], budget_tokens: int, layout: Layout
) -> list[list[int]]:
    """Indices of each micro-batch: longest rollouts first, as many as the budget holds, at least
    one.

    A padded micro-batch costs rollouts x its longest; a packed one costs the sum of its lengths.
    """
    parts: list[list[int]] = []
    longest = total = 0
    for index in torch.argsort(length_B, descending=True, stable=True).tolist():
        length = int(length_B[index])
        cost = (len(parts[-1]) + 1) * longest if parts and layout == "padded" else total + length
        if not parts or cost > budget_tokens:
            parts.append([])
            longest, total = length, 0  # sorted: the first is the longest
        parts[-1].append(index)
        total += length
    return parts


def shard_across_ranks(length_B: Int[Tensor, " B"], num_ranks: int) -> list[list[int]]:
    """Indices of the rollouts that each rank works on: the longest first, each to the rank with the
    fewest tokens so far.

    A function of the lengths alone, so that every rank finds the same division, for evidence and
    for learning.
    """
    parts: list[list[int]] = [[] for _ in range(num_ranks)]
    load = [0] * num_ranks
    for index in torch.argsort(length_B, descending=True, stable=True).tolist():
        rank = load.index(min(load))
        parts[rank].append(index)
        load[rank] += int(length_B[index])
    return parts


def atomic_units(batch: Batch, layout: Layout) -> tuple[Int[Tensor, " U"], int]:
    """How long each unit is that stays in one micro-batch, and how many rollouts it holds: a
    rollout, or a pair of neighbours.
    """
    if batch.pair_B is None:
        return batch.length_B, 1
    assert torch.equal(batch.pair_B[1::2], batch.pair_B[::2] + 1), (
        "the two sides of a pair lie side by side"
    )
    length_P2 = batch.length_B.view(-1, 2)
    return (2 * length_P2.amax(1) if layout == "padded" else length_P2.sum(1)), 2


def unit_rollouts(units: Sequence[int], size: int) -> list[int]:
    """The rollouts of these units of so many each."""
    return [unit * size + one for unit in units for one in range(size)]


def build(batch: Batch, index: Sequence[int], layout: Layout) -> MicroBatch:
    """The trunk's input for these rollouts of the batch; for none of them, one token that no row
    looks at.
    """
    if batch.images:
        return _with_images(batch, index, layout)
    micro = _of_ids(batch, index, layout)
    return replace(micro, soft=_soft_inputs(batch, micro)) if batch.soft else micro


def _with_images(batch: Batch, index: Sequence[int], layout: Layout) -> MicroBatch:
    """The same with images; for no rollout, one with an image, so that all ranks use the eyes of
    the model together.
    """
    assert layout == "padded", "rows with images are not packed"
    seen = list(index) or [
        next(i for i, rollout in enumerate(batch.rollout_B.tolist()) if rollout in batch.images)
    ]
    micro = replace(
        _of_ids(batch, seen, layout),
        images=tuple(batch.images.get(int(batch.rollout_B[i])) for i in seen),
    )
    return micro if index else replace(micro, index_K=micro.index_K[:0], start_K=micro.start_K[:0])


def _soft_inputs(batch: Batch, micro: MicroBatch) -> SoftInputs:
    """What is fed at the soft tokens of these rollouts; here the embeddings come from whoever
    sampled them.
    """
    local_M, token_M = (batch.kind_BT[micro.index_K] == TokenKind.SOFT).nonzero(as_tuple=True)
    fed = [
        batch.soft[int(batch.rollout_B[index])].fed()
        for index in micro.index_K[local_M.unique()].tolist()
    ]
    value_MD = torch.cat(fed).float().detach() if fed else torch.zeros(0, 1)
    assert len(value_MD) == len(token_M), (
        f"{len(token_M)} soft tokens and {len(value_MD)} embeddings"
    )
    return SoftInputs(micro.start_K[local_M] + token_M, value_MD)


def _of_ids(batch: Batch, index: Sequence[int], layout: Layout) -> MicroBatch:
    """The same, of ids alone."""
    if not index:
        nothing, one = torch.zeros(0, dtype=torch.long), torch.zeros(1, 1, dtype=torch.long)
        return MicroBatch(nothing, one, one, nothing)
    index_K = torch.tensor(index, dtype=torch.long)
    length_K = batch.length_B[index_K]
    if layout == "packed":
        ids = torch.cat(
            [batch.ids_BT[i, :n] for i, n in zip(index, length_K.tolist(), strict=True)]
        )
        position = torch.cat([torch.arange(n) for n in length_K.tolist()])
        return MicroBatch(index_K, ids[None], position[None], length_K.cumsum(0) - length_K)
    width = int(length_K.max())
    position = torch.arange(width)[None].expand(len(index), width)
    return MicroBatch(
        index_K, batch.ids_BT[index_K, :width], position, torch.arange(len(index)) * width
    )


def token_fields_at(
    batch: Batch, rollout_N: Int[Tensor, " N"], token_N: Int[Tensor, " N"]
) -> TokenFields:
    """The columns of a batch at N of its rows."""
    return TokenFields(
        ids_N=batch.ids_BT[rollout_N, token_N],
        advantage_N=batch.advantage_B[rollout_N],
        evidence={name: column[rollout_N, token_N] for name, column in batch.evidence.items()},
    )
