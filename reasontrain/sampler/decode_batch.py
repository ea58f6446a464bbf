"""Sequences that decode together: their shared cache, and the inputs of their next steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers.cache_utils import Cache

from reasontrain import rng
from reasontrain.models import Policy
from reasontrain.models.varlen import VARLEN
from reasontrain.rng import Stream
from reasontrain.sampler import cache as caches
from reasontrain.sampler.sequence import SequenceState
from reasontrain.sampler.token_decoding import RandomDraws


@dataclass
class DecodeBatch:
    """N sequences that decode together.

    Attributes:
        sequences: the sequences, some of which may be done.
        cache_rows: the cache row of each sequence; several may share one right after prefill.
        first_columns: the cache column of each sequence's first token, after the padding.
        position_offsets: position minus column distance; not 0 for prompts with images, whose
            positions advance faster than the number of tokens.
        cache: keys and values of all sequences, which end in the same column.
        hidden_ND: hidden states that predict the next token.
    """

    sequences: list[SequenceState]
    cache_rows: list[int]
    first_columns: list[int]
    position_offsets: list[int]
    cache: Cache
    hidden_ND: Float[Tensor, "N D"]

    @property
    def num_done(self) -> int:
        """The number of sequences that are done and only occupy memory."""
        return sum(sequence.done for sequence in self.sequences)


def one_mask_serves(policy: Policy) -> bool:
    """True if one mask, of the columns that a token sees, serves every layer of a model.

    Flash attention builds masks of its own; sliding windows and chunks need others.
    """
    config = policy.model.config.get_text_config().to_dict()
    return (
        # `varlen` decodes as `sdpa` does.
        policy.model.config._attn_implementation in ("sdpa", VARLEN)
        and config.get("sliding_window") is None
        and config.get("attention_chunk_size") is None
        and set(config.get("layer_types") or ()) <= {"full_attention"}
    )


def prefill(policy: Policy, sequences: Sequence[SequenceState]) -> DecodeBatch:
    """Run the prompts of these sequences, each distinct prompt once, with left padding."""
    distinct = list(dict.fromkeys(sequence.model_input for sequence in sequences))
    prompts = [ids for ids, _ in distinct]
    images = [image for _, image in distinct]
    width = max(map(len, prompts))
    # Left padding: all sequences end in the same column, so every step writes one column.
    paddings = [width - len(prompt) for prompt in prompts]
    ids_BT = torch.tensor(
        [[0] * padding + list(prompt) for padding, prompt in zip(paddings, prompts, strict=True)],
        device=policy.device,
    )
    mask_BT, position_BT = _columns(torch.tensor(paddings, device=policy.device), width)
    cache = caches.new(
        policy.model.config.get_text_config().num_hidden_layers, width, _cache_dtype(policy)
    )
    mask = mask_BT if any(paddings) else None
    hidden_BTD = policy.hidden(ids_BT, position=position_BT, mask=mask, cache=cache, images=images)
    rows = [distinct.index(sequence.model_input) for sequence in sequences]
    return DecodeBatch(
        sequences=list(sequences),
        cache_rows=rows,
        first_columns=[paddings[row] for row in rows],
        position_offsets=[policy.position_shift(images[row]) for row in rows],
        cache=cache,
        hidden_ND=hidden_BTD[rows, -1],
    )


def merge(decode_batches: Sequence[DecodeBatch], room: int) -> DecodeBatch:
    """Join the sequences that are not done into one batch with room for `room` more columns.

    Consumes the batches: their caches are freed layer by layer.
    """
    kept = [
        [index for index, sequence in enumerate(batch.sequences) if not sequence.done]
        for batch in decode_batches
    ]
    live = [
        (batch, indices) for batch, indices in zip(decode_batches, kept, strict=True) if indices
    ]
    slices = [
        caches.CacheSlice(
            batch.cache,
            [batch.cache_rows[i] for i in indices],
            # columns that are padding in every kept sequence
            min(batch.first_columns[i] for i in indices),
        )
        for batch, indices in live
    ]
    width = max(part.width for part in slices)
    sequences = [batch.sequences[i] for batch, indices in live for i in indices]
    return DecodeBatch(
        sequences=sequences,
        cache_rows=list(range(len(sequences))),
        # caches are aligned at their last column: distances from the end stay the same
        first_columns=[
            batch.first_columns[i] + width - batch.cache.get_seq_length()
            for batch, indices in live
            for i in indices
        ],
        position_offsets=[batch.position_offsets[i] for batch, indices in live for i in indices],
        hidden_ND=torch.cat([batch.hidden_ND[indices] for batch, indices in live]),
        cache=caches.join(slices, room),
    )


class DecodeInputs:
    """Masks, positions and random numbers of the next `room` steps of one batch."""

    def __init__(self, decode_batch: DecodeBatch, room: int, seed: int, policy: Policy) -> None:
        device = policy.device
        self.policy = policy
        self.length = decode_batch.cache.get_seq_length()
        self.room = room
        first_column_N = torch.tensor(decode_batch.first_columns, device=device)
        offset_N = torch.tensor(decode_batch.position_offsets, device=device)
        self.mask_NS, distance_NS = _columns(first_column_N, self.length + room)
        self.position_NS = distance_NS + offset_N[:, None]
        self.padded = any(decode_batch.first_columns)
        self.one_mask = one_mask_serves(policy)
        place_NS = torch.tensor(
            [[sequence.start + len(sequence.response)] for sequence in decode_batch.sequences],
            device=device,
        ) + torch.arange(room, device=device)
        self.id_N = torch.tensor(
            [sequence.id for sequence in decode_batch.sequences], device=device
        )
        self.uniform_NS = rng.uniform(
            seed, Stream.SAMPLED_TOKENS, self.id_N[:, None].expand_as(place_NS), place_NS
        )
        self.seed = seed
        self.place_NS = place_NS
        self.step = 0

    def draws(self, rows: slice) -> RandomDraws:
        """The random numbers of these sequences in the current step."""
        return RandomDraws(
            self.uniform_NS[rows, self.step],
            self.seed,
            self.id_N[rows],
            self.place_NS[rows, self.step],
        )

    def advance(self, next_input: Tensor, cache: Cache) -> Float[Tensor, "N D"]:
        """Run one token per sequence, ids [N, 1] or embeddings [N, 1, D]; return hidden states."""
        column = self.length + self.step
        self.step += 1
        is_embedding = next_input.is_floating_point()
        hidden_N1D = self.policy.hidden(
            None if is_embedding else next_input,
            embeds=next_input if is_embedding else None,
            position=self.position_NS[:, column : column + 1],
            mask=self._mask(column + 1) if self.padded else None,
            cache=cache,
        )
        return hidden_N1D[:, 0]

    def _mask(self, width: int) -> Int[Tensor, "N S"] | Bool[Tensor, "N 1 1 S"]:
        """The mask of this many columns."""
        mask_NS = self.mask_NS[:, :width]
        # transformers makes the same of a mask of two dimensions, and waits for the device in every
        # step to see if anything is masked.
        return mask_NS.bool()[:, None, None] if self.one_mask else mask_NS


def _columns(
    first_column_N: Int[Tensor, " N"], num_columns: int
) -> tuple[Int[Tensor, "N S"], Int[Tensor, "N S"]]:
    """Mask of every column, and its distance from the first token, for left-padded sequences."""
    distance_NS = torch.arange(num_columns, device=first_column_N.device) - first_column_N[:, None]
    return (distance_NS >= 0).long(), distance_NS.clamp(min=0)


def _cache_dtype(policy: Policy) -> torch.dtype | None:
    """The dtype of cached keys and values; None keeps the dtype that attention computes."""
    # Under autocast, attention rounds its inputs to the policy's dtype anyway: storing them
    # rounded changes no value and halves the cache.
    return None if policy.dtype == torch.float32 else policy.dtype
