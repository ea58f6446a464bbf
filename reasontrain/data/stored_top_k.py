"""A teacher's likeliest ids at each token of written responses, stored once and read at training.

The format is that of `stored_evidence`: Parquet parts, one row per response, with `made_by` in the
metadata. The columns are `sample_id`; `ids_hash`, of the ids of prompt and response together, on
which alone the numbers depend; and for the T tokens of the response `top_ids` (T x K ids, likeliest
first, in int32), and in float32 `top_logp` (their log-probabilities, in nats) and `log_rest` (T
numbers: log of the mass of all other ids).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from reasontrain.data.stored_evidence import (
    HASH,
    SAMPLE,
    MadeBy,
    hash_of,
    part_of,
    parts_of,
    read_tables,
    write_table,
)
from reasontrain.types import Rollout, RunError, UserError

TOP_IDS = "top_ids"
TOP_LOGP = "top_logp"
LOG_REST = "log_rest"
NAME = "log-probs of a teacher"


@dataclass(frozen=True, eq=False)
class TopKTokens:
    """The teacher's K likeliest ids at the last T tokens of a sequence.

    Attributes:
        ids_TK: the ids; -1 fills up a token with fewer.
        logp_TK: their log-probabilities, in nats.
        log_rest_T: log of the mass of all other ids.
    """

    ids_TK: Int[Tensor, "T K"]
    logp_TK: Float[Tensor, "T K"]
    log_rest_T: Float[Tensor, " T"]

    def __len__(self) -> int:
        return len(self.log_rest_T)


def key_of(rollout: Rollout) -> str:
    """The hash under which the numbers of a response are found."""
    return hash_of([*rollout.prompt_ids, *rollout.response_ids])


def write(
    store: Path, rollouts: Sequence[Rollout], scored: Sequence[TopKTokens], made_by: MadeBy
) -> Path:
    """Write one more part of a store, atomically.

    Args:
        store: the directory of parts.
        rollouts: the responses.
        scored: the numbers of each response, one row per response token.
        made_by: everything that the numbers depend on besides the ids.

    Returns:
        The part.

    Raises:
        RunError: a number is not finite.
    """
    import pyarrow

    for rollout, tokens in zip(rollouts, scored, strict=True):
        assert len(tokens) == len(rollout.response_ids), "one row of numbers per response token"
        if not (tokens.logp_TK.isfinite().all() and tokens.log_rest_T.isfinite().all()):
            raise RunError(
                f"the teacher's log-probs of {rollout.problem.label} are not finite; look for "
                "damaged weights"
            )

    def flat(numbers: Iterable[Tensor], dtype: pyarrow.DataType) -> pyarrow.Array:
        return pyarrow.array([n.flatten().numpy() for n in numbers], type=pyarrow.list_(dtype))

    table = pyarrow.table(
        {
            SAMPLE: pyarrow.array([rollout.problem.id for rollout in rollouts]),
            HASH: pyarrow.array([key_of(rollout) for rollout in rollouts]),
            TOP_IDS: flat((tokens.ids_TK.int() for tokens in scored), pyarrow.int32()),
            TOP_LOGP: flat((tokens.logp_TK.float() for tokens in scored), pyarrow.float32()),
            LOG_REST: flat((tokens.log_rest_T.float() for tokens in scored), pyarrow.float32()),
        }
    )
    numbers = [int(part.stem.removeprefix("part-")) for part in existing(store)]
    path = part_of(store, max(numbers, default=-1) + 1)
    write_table(path, table, made_by)
    return path


def existing(store: Path) -> list[Path]:
    """The parts of a store; none if there is no such directory."""
    return parts_of(store) if store.is_dir() else []


class TopKStore:
    """The numbers in a store, by the ids of the sequence."""

    def __init__(self, store: Path, scored: Mapping[str, TopKTokens]) -> None:
        self.store = store
        self.scored = scored

    @classmethod
    def read(cls, store: Path, made_by: MadeBy | None = None) -> TopKStore:
        """Read a store; one that does not exist is empty.

        Raises UserError if a part is unreadable, damaged, or made by another teacher, with another
        tokenizer or another `top_k` than `made_by` says.
        """
        scored: dict[str, TopKTokens] = {}
        columns = (SAMPLE, HASH, TOP_IDS, TOP_LOGP, LOG_REST)
        if existing(store):
            for table in read_tables(store, NAME, columns, made_by):
                ids, logp, rest = (
                    _lists(table[column]) for column in (TOP_IDS, TOP_LOGP, LOG_REST)
                )
                rows = zip(table[HASH].to_pylist(), ids, logp, rest, strict=True)
                for key, ids_M, logp_M, log_rest_T in rows:
                    num_tokens = len(log_rest_T)
                    if len(ids_M) != len(logp_M) or len(ids_M) % max(num_tokens, 1):
                        raise UserError(
                            f"{store} is damaged: a response of {num_tokens} tokens has "
                            f"{len(ids_M)} ids and {len(logp_M)} log-probs; {remedy(store)}"
                        )
                    if not (logp_M.isfinite().all() and log_rest_T.isfinite().all()):
                        raise UserError(
                            f"{store} is damaged: it holds a log-prob that is not finite; "
                            f"{remedy(store)}"
                        )
                    shape = (num_tokens, len(ids_M) // max(num_tokens, 1))
                    scored[key] = TopKTokens(ids_M.view(shape), logp_M.view(shape), log_rest_T)
        return cls(store, scored)

    def missing(self, rollouts: Iterable[Rollout]) -> list[Rollout]:
        """The responses that the store does not hold, each sequence once."""
        by_length = sorted(rollouts, key=lambda rollout: len(rollout.response_ids))
        # Of equal sequences that are divided elsewhere, the longest response has all numbers.
        longest = {key_of(rollout): rollout for rollout in by_length}
        return [
            rollout
            for key, rollout in longest.items()
            if key not in self.scored or len(self.scored[key]) < len(rollout.response_ids)
        ]

    def check(self, rollouts: Sequence[Rollout]) -> None:
        """Raise UserError that names the first response that was not scored."""
        if lacking := self.missing(rollouts):
            raise UserError(
                f"teacher.store: {self.store} holds no log-probs for the token ids of "
                f"{len(lacking):,} of {len(rollouts):,} responses, the first of them of "
                f"{lacking[0].problem.where}; run `reasontrain score RECIPE`, which adds them"
            )

    def of(self, ids: Sequence[int]) -> TopKTokens:
        """The numbers of this sequence."""
        key = hash_of(ids)
        if key not in self.scored:
            raise UserError(
                f"teacher.store: {self.store} holds no log-probs for a sequence of {len(ids)} "
                "tokens; run `reasontrain score RECIPE`, which adds them"
            )
        return self.scored[key]


def remedy(store: Path) -> str:
    """The advice about a store that cannot be used."""
    return f"remove {store} and run `reasontrain score RECIPE`"


def _lists(column: object) -> list[Tensor]:
    """The lists of a column of numbers, as tensors that share one memory."""
    from pyarrow import ChunkedArray

    assert isinstance(column, ChunkedArray)
    if not len(column):
        return []
    combined = column.combine_chunks()
    values = torch.from_numpy(combined.flatten().to_numpy(zero_copy_only=False).copy())
    return list(values.split(combined.value_lengths().fill_null(0).to_pylist()))
