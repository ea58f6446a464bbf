"""Tokens of TRL's micro-batches, and their places in a `Batch`.

TRL pads on either side, puts all chosen responses of a micro-batch before the rejected ones, or
lays sequences end to end. In all of these a token has a rollout and a column, so one mapping serves
every trainer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

from reasontrain.types import Batch, TokenKind


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainerTokens:
    """The N positions of a micro-batch, padding included, on the CPU.

    Attributes:
        ids_N: token ids.
        kind_N: `TokenKind` of each position.
        rollout_N: the rollout of each position, numbered from 0 in the micro-batch.
        column_N: the position in its rollout.
        num_rollouts: number of rollouts, those without response tokens included.
    """

    ids_N: Int[Tensor, " N"]
    kind_N: Int[Tensor, " N"]
    rollout_N: Int[Tensor, " N"]
    column_N: Int[Tensor, " N"]
    num_rollouts: int

    @classmethod
    def padded(cls, ids_RT: Int[Tensor, "R T"], kind_RT: Int[Tensor, "R T"]) -> TrainerTokens:
        """One rollout per row, padded on either side."""
        num, width = ids_RT.shape
        return cls(
            ids_N=ids_RT.reshape(-1).cpu(),
            kind_N=kind_RT.reshape(-1).cpu(),
            rollout_N=torch.arange(num).repeat_interleave(width),
            column_N=torch.arange(width).repeat(num),
            num_rollouts=num,
        )

    @classmethod
    def pairs(cls, ids_RT: Int[Tensor, "R T"], kind_RT: Int[Tensor, "R T"]) -> TrainerTokens:
        """Pairs, all chosen rows before all rejected ones; pair i is rollouts 2i and 2i + 1."""
        num, width = ids_RT.shape
        place_R = torch.arange(num).view(-1, 2).t().reshape(-1)
        return cls(
            ids_N=ids_RT.reshape(-1).cpu(),
            kind_N=kind_RT.reshape(-1).cpu(),
            rollout_N=place_R.repeat_interleave(width),
            column_N=torch.arange(width).repeat(num),
            num_rollouts=num,
        )

    @classmethod
    def flattened(
        cls, ids_N: Int[Tensor, " N"], kind_N: Int[Tensor, " N"], position_N: Int[Tensor, " N"]
    ) -> TrainerTokens:
        """Sequences end to end; one begins wherever the position is 0.

        Sequences without a response token, such as padding at the end, are no rollouts: their
        positions are put into the padding of the first.
        """
        sequence_N = (position_N == 0).long().cumsum(0).cpu() - 1
        kind_N = kind_N.cpu()
        is_rollout_U = torch.zeros(int(sequence_N[-1]) + 1, dtype=torch.bool)
        is_rollout_U[sequence_N[kind_N == TokenKind.RESPONSE]] = True
        trained_N = is_rollout_U[sequence_N]
        number_U = is_rollout_U.long().cumsum(0) - 1
        width = int(position_N.max()) + 1
        return cls(
            ids_N=ids_N.cpu(),
            kind_N=torch.where(trained_N, kind_N, int(TokenKind.PAD)),
            rollout_N=torch.where(trained_N, number_U[sequence_N], 0),
            column_N=torch.where(trained_N, position_N.cpu(), width),
            num_rollouts=max(int(is_rollout_U.sum()), 1),
        )

    def to_batch(self, values: Num[Tensor, "..."], fill: int = 0) -> Num[Tensor, "B T"]:
        """One number per position, in any shape of N elements, as a tensor of the batch."""
        width = int(self.column_N.max()) + 1
        result_BT = torch.full((self.num_rollouts, width), fill, dtype=values.dtype)
        result_BT[self.rollout_N, self.column_N] = values.detach().reshape(-1).cpu()
        return result_BT

    def from_batch(self, values_BT: Float[Tensor, "B T"], like: Tensor) -> Tensor:
        """The values at the positions, in the shape and on the device of a tensor of TRL's.

        `like` may hold the last positions of each row alone, as the completions do.
        """
        values = values_BT[self.rollout_N, self.column_N].view(len(like), -1)
        return values[:, -like.shape[1] :].to(like.device, torch.float32)


@dataclass(frozen=True, kw_only=True, eq=False)
class StepTokens:
    """The rollouts of an optimiser step, as selection reads them.

    Attributes:
        ids_BT: token ids.
        kind_BT: `TokenKind` of each token.
        evidence: name -> one number per token.
        advantage_B: advantages; zeros where the trainer has none.
    """

    ids_BT: Int[Tensor, "B T"]
    kind_BT: Int[Tensor, "B T"]
    advantage_B: Float[Tensor, " B"]
    evidence: Mapping[str, Tensor] = field(default_factory=dict)

    def batch(self, *, step: int, progress: float, seed: int, group: int, paired: bool) -> Batch:
        """The batch that a rule is called with.

        Args:
            step: the optimiser step, counted from 0.
            progress: share of the run that is done, in [0, 1].
            seed: seed of the run.
            group: rollouts of one prompt, which follow one another.
            paired: rollouts are pairs, chosen before rejected.
        """
        num = len(self.ids_BT)
        index_B = torch.arange(num)
        return Batch(
            ids_BT=self.ids_BT,
            kind_BT=self.kind_BT,
            rollout_B=step * num + index_B,
            group_B=step * num + index_B // group * group,
            reward_B=torch.zeros(num),
            advantage_B=self.advantage_B,
            pair_B=index_B if paired else None,
            sampled_rollouts=num,
            sampled_tokens=int((self.kind_BT == TokenKind.RESPONSE).sum()),
            progress=progress,
            seed=seed,
            step=step,
        ).with_evidence(self.evidence)


def joined(parts: Sequence[StepTokens]) -> StepTokens:
    """The rollouts of all parts in order, padded to one width."""
    width = max(part.ids_BT.shape[1] for part in parts)
    return StepTokens(
        ids_BT=torch.cat([_widened(part.ids_BT, width) for part in parts]),
        kind_BT=torch.cat([_widened(part.kind_BT, width) for part in parts]),
        advantage_B=torch.cat([part.advantage_B for part in parts]),
        evidence={
            name: torch.cat([_widened(part.evidence[name], width) for part in parts])
            for name in parts[0].evidence
        },
    )


def _widened(values_BT: Num[Tensor, "B T"], width: int) -> Num[Tensor, "B _"]:
    return torch.nn.functional.pad(values_BT, (0, width - values_BT.shape[1]))
