"""Rollouts -> one Batch of token ids, right-padded."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Num
from torch import Tensor

from reasontrain.algo.advantages import Advantage
from reasontrain.types import Batch, Rollout, TokenKind

_TRAINED = (TokenKind.RESPONSE, TokenKind.SOFT)
_READ = (TokenKind.PROMPT, TokenKind.TOOL)


def collate(
    rollouts: Sequence[Rollout],
    *,
    advantage: Advantage,
    masked: frozenset[int] = frozenset(),
    paired: bool = False,
    progress: float = 0.0,
    seed: int = 0,
    step: int = 0,
) -> Batch:
    """The batch of one step: B rollouts of at most T tokens.

    A token whose loss weight is 0 is masked. Stored evidence is NaN for responses that have none.
    `sampled_logp` is in the batch only if every rollout has it.

    Args:
        rollouts: the rollouts of the step; each has a reward and a token before its response.
        advantage: rewards of groups -> one advantage per rollout.
        masked: ids of rollouts that count for advantages but are not trained on.
        paired: rollouts are pairs, chosen before rejected.
        progress: share of the run that is done, in [0, 1].
        seed: seed of the run.
        step: number of the step.

    Returns:
        The batch, on the CPU.
    """
    assert all(r.prompt_ids for r in rollouts), "a response needs a token before it"
    width = max((len(r.prompt_ids) + len(r.response_ids) for r in rollouts), default=1)
    rewards = [r.reward for r in rollouts if r.reward is not None]
    assert len(rewards) == len(rollouts), "rollouts without a reward are left out before"
    reward_B = torch.tensor(rewards, dtype=torch.float64)
    group_B = torch.tensor([r.group for r in rollouts], dtype=torch.long)
    batch = Batch(
        ids_BT=_padded([[*r.prompt_ids, *r.response_ids] for r in rollouts], width, torch.long),
        kind_BT=_padded([_kinds(r, masked) for r in rollouts], width, torch.long),
        rollout_B=torch.tensor([r.id for r in rollouts], dtype=torch.long),
        group_B=group_B,
        reward_B=reward_B.float(),
        advantage_B=advantage(reward_B, group_B).float(),  # float32 would round the differences
        correct_B=_verdicts(rollouts),
        pair_B=torch.arange(len(rollouts)) if paired else None,
        sampled_rollouts=len(rollouts),
        loss_weight_BT=_loss_weights(rollouts, width),
        sampled_tokens=num_sampled_tokens(rollouts),
        progress=progress,
        seed=seed,
        step=step,
        soft={r.id: r.soft for r in rollouts if r.soft is not None},
        images={r.id: r.problem.image for r in rollouts if r.problem.image is not None},
    )
    stored = sorted({name for rollout in rollouts for name in rollout.evidence})
    batch = batch.with_evidence(
        {
            name: _padded([_stored_values(r, name) for r in rollouts], width, torch.float32)
            for name in stored
        }
    )
    # Demonstrations and soft thoughts have no log-probabilities of a sampler.
    if any(len(r.sampled_logp) != len(r.response_ids) for r in rollouts):
        return batch
    sampled = [[0.0] * len(r.prompt_ids) + list(r.sampled_logp) for r in rollouts]
    return batch.with_evidence({"sampled_logp": _padded(sampled, width, torch.float32)})


def _verdicts(rollouts: Sequence[Rollout]) -> Bool[Tensor, " B"] | None:
    """The verdicts of the rollouts, if each has one."""
    verdicts = [r.correct for r in rollouts if r.correct is not None]
    return torch.tensor(verdicts, dtype=torch.bool) if len(verdicts) == len(rollouts) else None


def num_sampled_tokens(rollouts: Sequence[Rollout]) -> int:
    """Tokens of the responses without the turns of users and tools inside them."""
    return sum(len(r.response_ids) - sum(kind in _READ for kind in r.kinds) for r in rollouts)


def _loss_weights(rollouts: Sequence[Rollout], width: int) -> Float[Tensor, "B T"] | None:
    """The loss weight of each token of the sequences, 1 in prompts; None if all are 1."""
    if not any(rollout.loss_weight for rollout in rollouts):
        return None
    rows = [
        [1.0] * len(r.prompt_ids) + list(r.loss_weight or [1.0] * len(r.response_ids))
        for r in rollouts
    ]
    return _padded(rows, width, torch.float32)


def _kinds(rollout: Rollout, masked: frozenset[int]) -> list[int]:
    """The kind of each token of the sequence."""
    response = list(rollout.kinds) or [int(TokenKind.RESPONSE)] * len(rollout.response_ids)
    for index, weight in enumerate(rollout.loss_weight):
        if weight == 0 and response[index] in _TRAINED:
            response[index] = int(TokenKind.MASKED)
    if rollout.id in masked:
        response = [int(TokenKind.MASKED) if kind in _TRAINED else kind for kind in response]
    return [int(TokenKind.PROMPT)] * len(rollout.prompt_ids) + response


def _stored_values(rollout: Rollout, name: str) -> list[float]:
    """Stored evidence at each token of the sequence, zeros in the prompt."""
    values = rollout.evidence.get(name, [math.nan] * len(rollout.response_ids))
    assert len(values) == len(rollout.response_ids), "one number per response token"
    return [0.0] * len(rollout.prompt_ids) + list(values)


def _padded(
    sequences: Sequence[Sequence[int | float]], width: int, dtype: torch.dtype
) -> Num[Tensor, "B T"]:
    """Sequences of numbers, filled with zeros on the right."""
    rows = [[*numbers, *[0] * (width - len(numbers))] for numbers in sequences]
    # The shape is explicit for a batch without rollouts.
    return torch.tensor(rows, dtype=dtype).reshape(len(rows), width)
