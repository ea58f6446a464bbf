"""A batch as a teacher reads it: another prompt before the same response."""

from __future__ import annotations

from dataclasses import replace

import torch

from reasontrain.data.micro_batches import (
    Layout,
    MicroBatch,
    MicroBatchTokens,
    build_micro_batch,
)
from reasontrain.types import Batch, TokenKind


def teacher_sequence(batch: Batch, index: int) -> list[int]:
    """The token ids of one rollout as the teacher reads them, prompt and response."""
    ids: list[int] = batch.ids_BT[index, : int(batch.length_B[index])].tolist()
    prompt = batch.teacher_prompts.get(int(batch.rollout_B[index]))
    return ids if prompt is None else [*prompt.ids, *ids[prompt.replaced :]]


def teacher_micro_batch(batch: Batch, micro_batch: MicroBatch) -> MicroBatch:
    """A micro-batch of the same rollouts, in the same layout, with the teacher's prompts."""
    index = micro_batch.index_K.tolist()
    if not index:
        return micro_batch
    assert micro_batch.shard is None, "the recipe refuses ranks that share sequences"
    sequences = [teacher_sequence(batch, i) for i in index]
    width = max(map(len, sequences))
    ids_KT = torch.tensor([[*ids, *[0] * (width - len(ids))] for ids in sequences])
    length_K1 = torch.tensor([[len(ids)] for ids in sequences])
    is_token_KT = torch.arange(width) < length_K1
    kind_KT = torch.where(is_token_KT, int(TokenKind.PROMPT), int(TokenKind.PAD))
    # Only ids and lengths are read of it, and all else is dropped that has the student's width.
    seen = replace(
        batch.take(micro_batch.index_K),
        ids_BT=ids_KT,
        kind_BT=kind_KT,
        evidence={},
        loss_weight_BT=None,
        images={},
        soft={},
    )
    layout: Layout = "packed" if len(micro_batch.ids_RT) < len(index) else "padded"
    built = build_micro_batch(seen, range(len(index)), layout)
    return replace(built, index_K=micro_batch.index_K)


def teacher_tokens(batch: Batch, tokens: MicroBatchTokens, view: MicroBatch) -> MicroBatchTokens:
    """The same response tokens at their places in the teacher's micro-batch.

    A response begins later, or earlier, by the difference of the two prompts.
    """
    shift_K = batch.teacher_shift_B[tokens.micro_batch.index_K]
    return MicroBatchTokens(view, tokens.local_N, tokens.token_N + shift_K[tokens.local_N])
