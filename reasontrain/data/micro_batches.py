"""A batch cut into mini-batches (one optimiser step each) and micro-batches (one forward each).

The recipe chooses mini-batches; micro-batches, padding and packing cannot change a gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Bool, Float, Int, Shaped

from reasontrain import rng
from reasontrain.rng import Stream
from reasontrain.types import Batch, Image, TokenFields, TokenKind

if TYPE_CHECKING:
    from torch import Tensor

Layout = Literal["padded", "packed"]


@dataclass(frozen=True)
class SoftInputs:
    """Embeddings that replace token embeddings, at increasing places in the flattened ids."""

    place_M: Int[Tensor, " M"]
    value_MD: Float[Tensor, "M D"]

    def at(self, place_N: Int[Tensor, " N"]) -> Float[Tensor, "N D"]:
        """The embeddings fed at these places."""
        return self.value_MD[torch.searchsorted(self.place_M, place_N)]


@dataclass(frozen=True)
class SequenceShard:
    """The part of every row that one of several ranks holds: as many consecutive columns on each.

    Attributes:
        rank: this rank's number among `size`.
        size: how many ranks share the row.
    """

    rank: int
    size: int

    def columns(self, width: int) -> slice:
        """The columns of rows of this width that the rank holds."""
        share = width // self.size
        return slice(self.rank * share, (self.rank + 1) * share)

    def holds(self, place_N: Int[Tensor, " N"], width: int) -> Bool[Tensor, " N"]:
        """True at places of flattened rows of this width that the rank holds."""
        return place_N % width // (width // self.size) == self.rank

    def place(self, place_N: Int[Tensor, " N"], width: int) -> Int[Tensor, " N"]:
        """The same places, all of them held, in the rank's own flattened columns."""
        held = self.columns(width)
        return place_N // width * (held.stop - held.start) + place_N % width - held.start


@dataclass(frozen=True)
class MicroBatch:
    """The trunk's input for K rollouts, and the place of each of their tokens in its output.

    Padded: ids [K, T], padded on the right, where causal attention from real tokens does not reach.
    Packed: ids [1, L] and positions that restart at 0 with every rollout. Neither has an attention
    mask: attention separates packed sequences by `cu_seq_lens`, or, where it takes no lengths,
    transformers derives a mask from the restarting positions, and only if it is given none; with
    one, packed sequences would attend to each other, and padded ones would miss the fast path.

    Attributes:
        index_K: the rollouts, as indices into the batch.
        ids_RT: token ids, R rows of T.
        position_RT: the position of each token in its rollout.
        start_K: where each rollout begins in the flattened ids. Token t of rollout k is predicted
            by the flat hidden state `start_K[k] + t - 1`.
        soft: embeddings of soft thoughts. If the batch has any, every micro-batch has this field,
            empty or not, so that all ranks run the same collectives.
        images: those of the K prompts, if any prompt of the batch has one.
        shard: this rank's part of the rows, if ranks share them; ids and positions are of whole
            rows nevertheless.
    """

    index_K: Int[Tensor, " K"]
    ids_RT: Int[Tensor, "R T"]
    position_RT: Int[Tensor, "R T"]
    start_K: Int[Tensor, " K"]
    soft: SoftInputs | None = None
    images: tuple[Image | None, ...] = ()
    shard: SequenceShard | None = None

    @property
    def cu_seq_lens(self) -> tuple[int, ...] | None:
        """The start of each sequence of a single row, and the length of the row.

        None for several rows, which padding separates.
        """
        if len(self.ids_RT) > 1:
            return None
        starts = self.start_K.tolist() or [0]
        return (*starts, self.ids_RT.numel())

    def tokens(self, among_BT: Bool[Tensor, "B T"]) -> MicroBatchTokens:
        """The tokens of this micro-batch at which a mask over the batch is true.

        Of rows that ranks share, they are those that this rank's hidden states predict: each token
        is on one rank.
        """
        tokens = self._tokens(among_BT)
        if self.shard is None:
            return tokens
        held_N = self.shard.holds(tokens.logit_position_N, self.ids_RT.shape[1])
        return MicroBatchTokens(self, tokens.local_N[held_N], tokens.token_N[held_N])

    def _tokens(self, among_BT: Bool[Tensor, "B T"]) -> MicroBatchTokens:
        """The tokens at which a mask over the batch is true, whichever rank holds them."""
        local_N, token_N = among_BT[self.index_K].nonzero(as_tuple=True)
        return MicroBatchTokens(self, local_N, token_N)

    def shared(self, shard: SequenceShard) -> MicroBatch:
        """This micro-batch on one of the ranks that share its rows.

        Rows are padded on the right to a multiple of the ranks, where causal attention from real
        tokens does not reach; in a packed row the padding belongs to the last sequence.
        """
        num_rows, width = self.ids_RT.shape
        more = -width % shard.size
        if more:
            next_R1 = self.position_RT[:, -1:] + 1
            position_RT = torch.cat([self.position_RT, next_R1 + torch.arange(more)], 1)
            ids_RT = torch.cat([self.ids_RT, self.ids_RT.new_zeros(num_rows, more)], 1)
            start_K = self.start_K + self.start_K // width * more
            return replace(
                self, ids_RT=ids_RT, position_RT=position_RT, start_K=start_K, shard=shard
            )
        return replace(self, shard=shard)

    def num_tokens(self, batch: Batch) -> int:
        """The number of tokens of its rollouts, prompts included."""
        return int(batch.length_B[self.index_K].sum())

    def to_layout(self, mask_BS: Bool[Tensor, "B S"]) -> Bool[Tensor, "R T"]:
        """A mask over the tokens of the batch (S wide), arranged as `ids_RT`."""
        tokens = self._tokens(mask_BS)
        mask_M = torch.zeros(self.ids_RT.numel(), dtype=torch.bool)
        mask_M[tokens.place_N] = True
        return mask_M.view(self.ids_RT.shape)


@dataclass(frozen=True)
class MicroBatchTokens:
    """N tokens of a micro-batch, in the coordinates of the batch, the rollout and the trunk.

    Attributes:
        micro_batch: the micro-batch they belong to.
        local_N: the rollout of each token, counted within the micro-batch.
        token_N: its position in the rollout's sequence, prompt included.
    """

    micro_batch: MicroBatch
    local_N: Int[Tensor, " N"]
    token_N: Int[Tensor, " N"]

    def __len__(self) -> int:
        return len(self.local_N)

    @property
    def rollout_N(self) -> Int[Tensor, " N"]:
        """The rollout of each token, as an index into the batch."""
        return self.micro_batch.index_K[self.local_N]

    @property
    def place_N(self) -> Int[Tensor, " N"]:
        """The place of each token in the flattened ids."""
        return self.micro_batch.start_K[self.local_N] + self.token_N

    @property
    def logit_position_N(self) -> Int[Tensor, " N"]:
        """The flat hidden state that predicts each token."""
        return self.place_N - 1

    def of(self, column_BT: Shaped[Tensor, "B T"]) -> Shaped[Tensor, " N"]:
        """The entries of a column of the batch at these tokens."""
        return column_BT[self.rollout_N, self.token_N]

    def fields(self, batch: Batch) -> TokenFields:
        """The batch's columns at these tokens, as objectives read them."""
        return TokenFields(
            ids_N=self.of(batch.ids_BT),
            advantage_N=(
                batch.advantage_B[self.rollout_N]
                if batch.advantage_BT is None
                else self.of(batch.advantage_BT)
            ),
            penalty_N=None if batch.penalty_BT is None else self.of(batch.penalty_BT),
            evidence={name: self.of(column_BT) for name, column_BT in batch.evidence.items()},
        )


@dataclass(frozen=True)
class MiniBatch:
    """The rollouts of one optimiser step, and this rank's micro-batches of them.

    `index_M` is increasing and the same on every rank; the micro-batches differ from rank to rank.
    """

    index_M: Int[Tensor, " M"]
    micro_batches: Sequence[MicroBatch]


def make_mini_batches(
    batch: Batch,
    num: int,
    *,
    micro_batch_tokens: int,
    layout: Layout,
    rank: int = 0,
    num_ranks: int = 1,
    sequence_parallel: int = 1,
) -> list[MiniBatch]:
    """Split a batch by whole rollouts (or pairs) into `num` mini-batches, packed for this rank.

    With `num` = 1 the mini-batch is the batch. Otherwise units are shuffled by a key that depends
    on the batch's seed and step only, so that a resumed run splits them as before, and cut into
    nearly equal parts. If there are fewer units than mini-batches, some mini-batches are empty.

    Args:
        batch: the rollouts of a step, the same on every rank.
        num: number of mini-batches.
        micro_batch_tokens: number of tokens that one forward holds.
        layout: padded or packed.
        rank: the rank whose micro-batches are built.
        num_ranks: number of ranks that share each mini-batch. All get the same number of
            micro-batches, because a forward and a backward are collective operations: a rank with
            less work ends with empty ones.
        sequence_parallel: number of neighbouring ranks that take the same micro-batches, each a
            part of their rows. To the division of the batch they are one rank.

    Returns:
        The mini-batches, in the order in which they are learned from.
    """
    length_U, size = atomic_units(batch, layout)
    group, sequence_rank = divmod(rank, sequence_parallel)
    mini_batches = []
    for unit_M in _deal_out(batch, len(length_U), num):
        parts = [
            [
                unit_rollouts(unit_M[torch.tensor(shard)[part]].tolist(), size)
                for part in pack_micro_batches(length_U[unit_M][shard], micro_batch_tokens, layout)
            ]
            for shard in shard_across_ranks(length_U[unit_M], num_ranks // sequence_parallel)
        ]
        most = max(map(len, parts))
        filled = parts[group] + [[] for _ in range(most - len(parts[group]))]
        micro_batches = [build_micro_batch(batch, index, layout) for index in filled]
        if sequence_parallel > 1:
            shard = SequenceShard(sequence_rank, sequence_parallel)
            micro_batches = [micro.shared(shard) for micro in micro_batches]
        mini_batches.append(
            MiniBatch(
                torch.tensor(unit_rollouts(unit_M.tolist(), size), dtype=torch.long),
                micro_batches,
            )
        )
    return mini_batches


def _deal_out(batch: Batch, num_units: int, num: int) -> list[Int[Tensor, " M"]]:
    """The units of each mini-batch, in increasing order."""
    unit_U = torch.arange(num_units)
    if num == 1:
        return [unit_U]
    key_U = rng.uniform(batch.seed, Stream.MINI_BATCHES, batch.step, unit_U)
    order_U = torch.argsort(key_U, stable=True)
    bounds = [num_units * part // num for part in range(num + 1)]
    return [order_U[a:b].sort().values for a, b in pairwise(bounds)]


def pack_micro_batches(
    length_B: Int[Tensor, " B"], budget_tokens: int, layout: Layout
) -> list[list[int]]:
    """Indices of each micro-batch: the longest first, as many as the budget holds, at least one.

    A padded micro-batch costs rollouts x its longest; a packed one costs the sum of its lengths.
    """
    parts: list[list[int]] = []
    longest = total = 0
    for index in torch.argsort(length_B, descending=True, stable=True).tolist():
        length = int(length_B[index])
        cost = (len(parts[-1]) + 1) * longest if parts and layout == "padded" else total + length
        if not parts or cost > budget_tokens:
            parts.append([])
            longest = length  # lengths fall: the first of a micro-batch is its longest
            total = 0
        parts[-1].append(index)
        total += length
    return parts


def shard_across_ranks(length_B: Int[Tensor, " B"], num_ranks: int) -> list[list[int]]:
    """Indices for each rank: the longest first, each to the rank with the fewest tokens so far.

    A function of the lengths alone, so that every rank computes the same division, for evidence
    and for learning.
    """
    parts: list[list[int]] = [[] for _ in range(num_ranks)]
    load = [0] * num_ranks
    for index in torch.argsort(length_B, descending=True, stable=True).tolist():
        rank = load.index(min(load))
        parts[rank].append(index)
        load[rank] += int(length_B[index])
    return parts


def atomic_units(batch: Batch, layout: Layout) -> tuple[Int[Tensor, " U"], int]:
    """Lengths of the units that are never split, and the rollouts in each: 1, or 2 for pairs.

    The length is that of the model that reads the longer sequence, student or teacher.
    """
    length_B = torch.maximum(batch.length_B, batch.teacher_length_B)
    if batch.pair_B is None:
        return length_B, 1
    assert torch.equal(batch.pair_B[1::2], batch.pair_B[::2] + 1), (
        "the two sides of a pair lie side by side"
    )
    length_P2 = length_B.view(-1, 2)
    return (2 * length_P2.amax(1) if layout == "padded" else length_P2.sum(1)), 2


def unit_rollouts(units: Sequence[int], size: int) -> list[int]:
    """The rollouts of these units, of `size` rollouts each."""
    return [unit * size + offset for unit in units for offset in range(size)]


def build_micro_batch(batch: Batch, index: Sequence[int], layout: Layout) -> MicroBatch:
    """The trunk's input for these rollouts; if there are none, one token without a loss."""
    if batch.images:
        return _with_images(batch, index, layout)
    micro = _of_ids(batch, index, layout)
    return replace(micro, soft=_soft_inputs(batch, micro)) if batch.soft else micro


def _with_images(batch: Batch, index: Sequence[int], layout: Layout) -> MicroBatch:
    """The trunk's input for these rollouts, with their images.

    An empty micro-batch uses one rollout with an image: otherwise this rank would skip the vision
    tower, and the ranks that do run it would wait for this one.
    """
    assert layout == "padded", "rollouts with images are not packed"
    fed = list(index) or [
        next(i for i, rollout in enumerate(batch.rollout_B.tolist()) if rollout in batch.images)
    ]
    micro = replace(
        _of_ids(batch, fed, layout),
        images=tuple(batch.images.get(int(batch.rollout_B[i])) for i in fed),
    )
    return micro if index else replace(micro, index_K=micro.index_K[:0], start_K=micro.start_K[:0])


def _soft_inputs(batch: Batch, micro: MicroBatch) -> SoftInputs:
    """The embeddings at the soft tokens of these rollouts, fetched from the sampler's process."""
    tokens = micro.tokens(batch.kind_BT == TokenKind.SOFT)
    fed = [
        batch.soft[int(batch.rollout_B[index])].fed()
        for index in micro.index_K[tokens.local_N.unique()].tolist()
    ]
    value_MD = torch.cat(fed).float().detach() if fed else torch.zeros(0, 1)
    assert len(value_MD) == len(tokens), f"{len(tokens)} soft tokens, {len(value_MD)} embeddings"
    return SoftInputs(tokens.place_N, value_MD)


def _of_ids(batch: Batch, index: Sequence[int], layout: Layout) -> MicroBatch:
    """The trunk's input for these rollouts, from token ids only."""
    if not index:
        # Empty micro-batches keep the number of forwards, and so of collectives, equal on all
        # ranks. One token is the least that a trunk takes.
        nothing = torch.zeros(0, dtype=torch.long)
        one = torch.zeros(1, 1, dtype=torch.long)
        return MicroBatch(nothing, one, one, nothing)
    index_K = torch.tensor(index, dtype=torch.long)
    length_K = batch.length_B[index_K]
    if layout == "packed":
        # Positions restart at 0 with every rollout, which is how transformers keeps packed
        # sequences from attending to each other; continuing them would join all rollouts into one.
        ids_L = torch.cat(
            [batch.ids_BT[i, :n] for i, n in zip(index, length_K.tolist(), strict=True)]
        )
        position_L = torch.cat([torch.arange(n) for n in length_K.tolist()])
        return MicroBatch(index_K, ids_L[None], position_L[None], length_K.cumsum(0) - length_K)
    width = int(length_K.max())
    position_KT = torch.arange(width)[None].expand(len(index), width)
    return MicroBatch(
        index_K, batch.ids_BT[index_K, :width], position_KT, torch.arange(len(index)) * width
    )
