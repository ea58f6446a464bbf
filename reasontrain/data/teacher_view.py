"""A batch as a teacher reads it: another prompt before the same response."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Int
from torch import Tensor

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


def teacher_micro_batch(
    batch: Batch, micro_batch: MicroBatch, own_K: Int[Tensor, " K"]
) -> MicroBatch:
    """A micro-batch in the same layout with the teacher's prompts.

    Args:
        batch: the batch.
        micro_batch: the student's micro-batch.
        own_K: its rollouts that the teacher scores, counted within it.

    Returns:
        Their sequences; one token if there are none.
    """
    index_K = micro_batch.index_K[own_K]
    index = index_K.tolist()
    if not index:
        return build_micro_batch(replace(batch, images={}, soft={}), [], "padded")
    assert micro_batch.shard is None, "the recipe refuses ranks that share sequences"
    sequences = [teacher_sequence(batch, i) for i in index]
    width = max(map(len, sequences))
    ids_KT = torch.tensor([[*ids, *[0] * (width - len(ids))] for ids in sequences])
    length_K1 = torch.tensor([[len(ids)] for ids in sequences])
    is_token_KT = torch.arange(width) < length_K1
    kind_KT = torch.where(is_token_KT, int(TokenKind.PROMPT), int(TokenKind.PAD))
    # Only ids and lengths are read of it, and all else is dropped that has the student's width.
    seen = replace(
        batch.take(index_K),
        ids_BT=ids_KT,
        kind_BT=kind_KT,
        evidence={},
        loss_weight_BT=None,
        images={},
        soft={},
    )
    is_packed = len(micro_batch.ids_RT) < len(micro_batch.index_K)
    layout: Layout = "packed" if is_packed else "padded"
    built = build_micro_batch(seen, range(len(index)), layout)
    return replace(built, index_K=index_K)


def teacher_tokens(
    batch: Batch,
    tokens: MicroBatchTokens,
    view: MicroBatch,
    own_K: Int[Tensor, " K"],
    row_M: Int[Tensor, " M"],
) -> MicroBatchTokens:
    """Response tokens at their places in the teacher's micro-batch.

    A response begins later, or earlier, by the difference of the two prompts.

    Args:
        batch: the batch.
        tokens: tokens of a micro-batch.
        view: what `teacher_micro_batch` built of that.
        own_K: the rollouts in `view`, increasing.
        row_M: the tokens that are in them, as indices.
    """
    local_M = tokens.local_N[row_M]
    shift_M = batch.teacher_shift_B[tokens.rollout_N[row_M]]
    own_M = torch.searchsorted(own_K, local_M)
    return MicroBatchTokens(view, own_M, tokens.token_N[row_M] + shift_M)
