"""Rollouts -> one Batch: ids only, right-padded, one column per token."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Num
from torch import Tensor

from reasontrain.credit import Credit
from reasontrain.types import Batch, Kind, Rollout

_TRAINED = (Kind.RESPONSE, Kind.SOFT)


def collate(
    rollouts: Sequence[Rollout],
    *,
    credit: Credit,
    masked: frozenset[int] = frozenset(),
    progress: float = 0.0,
    seed: int = 0,
    step: int = 0,
) -> Batch:
    """The batch of one optimiser step; rollouts whose id is in `masked` earn credit and are not trained on."""
    assert all(r.prompt_ids for r in rollouts), "a response needs a token before it"
    width = max((len(r.prompt_ids) + len(r.response_ids) for r in rollouts), default=1)
    reward_B = torch.tensor([r.reward for r in rollouts], dtype=torch.float64)
    group_B = torch.tensor([r.group for r in rollouts], dtype=torch.long)
    batch = Batch(
        ids_BT=_padded([[*r.prompt_ids, *r.response_ids] for r in rollouts], width, torch.long),
        kind_BT=_padded([_kinds(r, masked) for r in rollouts], width, torch.long),
        rollout_B=torch.tensor([r.id for r in rollouts], dtype=torch.long),
        group_B=group_B,
        reward_B=reward_B.float(),
        advantage_B=credit(reward_B.float(), group_B).float(),
        sampled_rollouts=len(rollouts),
        sampled_rows=sum(len(r.response_ids) for r in rollouts),
        progress=progress,
        seed=seed,
        step=step,
        soft={r.id: r.soft for r in rollouts if r.soft is not None},
    )
    names = rollouts[0].evidence.keys() if rollouts else ()
    assert all(r.evidence.keys() == set(names) for r in rollouts), "all rollouts have the same stored evidence"
    stored = {name: [r.evidence[name] for r in rollouts] for name in names}
    if all(len(r.sampled_logp) == len(r.response_ids) for r in rollouts):
        stored["sampled_logp"] = [r.sampled_logp for r in rollouts]
    return batch.with_evidence({name: _column(rollouts, values, width) for name, values in stored.items()})


def _column(rollouts: Sequence[Rollout], values: Sequence[Sequence[float]], width: int) -> Float[Tensor, "B T"]:
    """Numbers of response tokens, each in the column of its token."""
    assert all(len(r.response_ids) == len(row) for r, row in zip(rollouts, values, strict=True)), "one number per response token"
    rows = [[0.0] * len(r.prompt_ids) + list(row) for r, row in zip(rollouts, values, strict=True)]
    return _padded(rows, width, torch.float32)


def _kinds(rollout: Rollout, masked: frozenset[int]) -> list[int]:
    """What each token of the sequence is."""
    response = list(rollout.kinds) or [int(Kind.RESPONSE)] * len(rollout.response_ids)
    if rollout.id in masked:
        response = [int(Kind.MASKED) if kind in _TRAINED else kind for kind in response]
    return [int(Kind.PROMPT)] * len(rollout.prompt_ids) + response


def _padded(rows: Sequence[Sequence[int | float]], width: int, dtype: torch.dtype) -> Num[Tensor, "B T"]:
    """Rows of numbers, filled with zeros on the right."""
    return torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], dtype=dtype).reshape(len(rows), width)
