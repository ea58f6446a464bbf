"""The rows that decode together: their shared cache, and what the next step needs to know of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers.cache_utils import Cache

from reasontrain import rng
from reasontrain.models import Policy
from reasontrain.rng import Stream
from reasontrain.sampler import cache as caches
from reasontrain.sampler.sequence import DecodingSequence
from reasontrain.sampler.token_decoding import RandomDraws


@dataclass
class DecodeBatch:
    """Rows in a batch.

    `slots` are their rows in the cache, `start` the columns of their first tokens, `hidden_ND` the
    states that predict the next. `shift` is how far their positions run ahead of their columns, as
    those of a model with images may.
    """

    rows: list[DecodingSequence]
    slots: list[int]
    start: list[int]
    shift: list[int]
    cache: Cache
    hidden_ND: Float[Tensor, "N D"]

    @property
    def num_done(self) -> int:
        """Rows that only take up space."""
        return sum(row.done for row in self.rows)


def prefill(policy: Policy, rows: Sequence[DecodingSequence]) -> DecodeBatch:
    """Read the prompts of these rows, each distinct prompt once, padded on the left."""
    seen = list(dict.fromkeys(row.read for row in rows))
    prompts, images = [ids for ids, _ in seen], [image for _, image in seen]
    width = max(map(len, prompts))
    start = [width - len(prompt) for prompt in prompts]
    ids_BT = torch.tensor(
        [[0] * pad + list(prompt) for pad, prompt in zip(start, prompts, strict=True)],
        device=policy.device,
    )
    mask_BT, position_BT = _columns(torch.tensor(start, device=policy.device), width)
    cache = caches.new(
        policy.model.config.get_text_config().num_hidden_layers, width, _stored(policy)
    )
    mask = mask_BT if any(start) else None
    hidden_BTD = policy.hidden(ids_BT, position=position_BT, mask=mask, cache=cache, images=images)
    slots = [seen.index(row.read) for row in rows]
    shift = [policy.shift(images[slot]) for slot in slots]
    return DecodeBatch(
        list(rows), slots, [start[slot] for slot in slots], shift, cache, hidden_BTD[slots, -1]
    )


def merge(decode_batches: Sequence[DecodeBatch], room: int) -> DecodeBatch:
    """The rows of these flights that are not done, in one, with room for so many more columns;
    consumes the flights.
    """
    kept = [
        [index for index, row in enumerate(decode_batch.rows) if not row.done]
        for decode_batch in decode_batches
    ]
    pairs = [
        (decode_batch, index)
        for decode_batch, index in zip(decode_batches, kept, strict=True)
        if index
    ]
    parts = [
        caches.CacheSlice(f.cache, [f.slots[i] for i in index], min(f.start[i] for i in index))
        for f, index in pairs
    ]
    width = max(part.width for part in parts)
    rows = [decode_batch.rows[i] for decode_batch, index in pairs for i in index]
    return DecodeBatch(
        rows=rows,
        slots=list(range(len(rows))),
        start=[
            decode_batch.start[i] + width - decode_batch.cache.get_seq_length()
            for decode_batch, index in pairs
            for i in index
        ],
        shift=[decode_batch.shift[i] for decode_batch, index in pairs for i in index],
        hidden_ND=torch.cat([decode_batch.hidden_ND[index] for decode_batch, index in pairs]),
        cache=caches.join(parts, room),
    )


class DecodeInputs:
    """What changes with every step of one flight: masks, positions and random numbers, made ahead
    for `room` steps.
    """

    def __init__(
        self, decode_batch: DecodeBatch, room: int, seed: int, device: torch.device
    ) -> None:
        self.length, self.room = decode_batch.cache.get_seq_length(), room
        start_N = torch.tensor(decode_batch.start, device=device)
        self.mask_NS, distance_NS = _columns(start_N, self.length + room)
        self.position_NS = distance_NS + torch.tensor(decode_batch.shift, device=device)[:, None]
        self.padded = any(decode_batch.start)
        place_NS = torch.tensor(
            [[len(row.response)] for row in decode_batch.rows], device=device
        ) + torch.arange(room, device=device)
        self.id_N = torch.tensor([row.id for row in decode_batch.rows], device=device)
        self.uniform_NS = rng.uniform(
            seed, Stream.SAMPLED_TOKENS, self.id_N[:, None].expand_as(place_NS), place_NS
        )
        self.seed, self.place_NS, self.step = seed, place_NS, 0

    def draws(self, rows: slice) -> RandomDraws:
        """The random numbers of some rows for what is chosen now."""
        return RandomDraws(
            self.uniform_NS[rows, self.step],
            self.seed,
            self.id_N[rows],
            self.place_NS[rows, self.step],
        )

    def advance(self, policy: Policy, fed: Tensor, cache: Cache) -> Float[Tensor, "N D"]:
        """Put one token per row, as ids [N, 1] or input embeddings [N, 1, D], through the trunk."""
        column = self.length + self.step
        self.step += 1
        ids_N1, embeds_N1D = (None, fed) if fed.is_floating_point() else (fed, None)
        position_N1 = self.position_NS[:, column : column + 1]
        mask_NS = self.mask_NS[:, : column + 1] if self.padded else None
        hidden_N1D = policy.hidden(
            ids_N1, embeds=embeds_N1D, position=position_N1, mask=mask_NS, cache=cache
        )
        return hidden_N1D[:, 0]


def _columns(
    start_N: Int[Tensor, " N"], num_columns: int
) -> tuple[Int[Tensor, "N S"], Int[Tensor, "N S"]]:
    """Mask and position of the first columns in rows that begin at `start`."""
    distance_NS = torch.arange(num_columns, device=start_N.device) - start_N[:, None]
    return (distance_NS >= 0).long(), distance_NS.clamp(min=0)


def _stored(policy: Policy) -> torch.dtype | None:
    """Attention under autocast rounds its inputs to the policy's dtype: stored rounded, they are
    the same and half the size.
    """
    return None if policy.dtype == torch.float32 else policy.dtype
