"""Teachers without weights: log-probabilities of their likeliest ids, looked up by token ids."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, runtime_checkable

import torch

from reasontrain import vocab
from reasontrain.data.micro_batches import MicroBatchTokens
from reasontrain.data.stored_top_k import TopKStore, TopKTokens
from reasontrain.data.teacher_view import teacher_sequence
from reasontrain.types import Batch, Tail


@runtime_checkable
class TopKSource(Protocol):
    """A teacher that gives log-probabilities of a few ids for sequences of token ids."""

    tail: Tail | None
    """The treatment of all other ids; None if the ids are the tokens themselves."""

    def fetch(self, sequences: Iterable[Sequence[int]]) -> None:
        """Have the numbers of these sequences at hand; called before `of`."""
        ...

    def of(self, ids: Sequence[int]) -> TopKTokens:
        """The numbers of the last tokens of a sequence."""
        ...

    def forget(self) -> None:
        """Drop what was fetched for the rollouts of a step."""
        ...


class StoredTopK:
    """Numbers that `reasontrain score` has stored."""

    def __init__(self, store: TopKStore, tail: Tail) -> None:
        self.store = store
        self.tail: Tail | None = tail

    def fetch(self, sequences: Iterable[Sequence[int]]) -> None:
        """See `TopKSource`: they are in memory."""

    def of(self, ids: Sequence[int]) -> TopKTokens:
        """See `TopKSource`."""
        return self.store.of(ids)

    def forget(self) -> None:
        """See `TopKSource`: written responses come again."""


def teacher_at(
    source: TopKSource, batch: Batch, tokens: MicroBatchTokens
) -> vocab.TopKTeacher | vocab.SampledTeacher:
    """The teacher at N tokens of a micro-batch, on the CPU."""
    parts: list[TopKTokens] = []
    for local, index in enumerate(tokens.micro_batch.index_K.tolist()):
        token_M = tokens.token_N[tokens.local_N == local]
        if not len(token_M):
            continue
        scored = source.of(teacher_sequence(batch, index))
        # Counted from the end, where the prompts of student and teacher make no difference.
        row_M = token_M - (int(batch.length_B[index]) - len(scored))
        assert int(row_M.min()) >= 0, "tokens that are trained belong to the scored response"
        parts.append(
            TopKTokens(scored.ids_TK[row_M], scored.logp_TK[row_M], scored.log_rest_T[row_M])
        )
    width = max((part.ids_TK.shape[1] for part in parts), default=1)
    ids_NK = torch.full((len(tokens), width), -1)
    logq_NK = torch.zeros(len(tokens), width)
    start = 0
    for part in parts:
        rows = slice(start, start + len(part))
        ids_NK[rows, : part.ids_TK.shape[1]] = part.ids_TK
        logq_NK[rows, : part.ids_TK.shape[1]] = part.logp_TK
        start += len(part)
    rest_N = torch.cat([torch.zeros(0), *(part.log_rest_T for part in parts)])
    if source.tail is None:
        return vocab.SampledTeacher(logq_NK[:, 0])
    return vocab.TopKTeacher(ids_NK, logq_NK, rest_N, source.tail)
