"""Small random steps, the same step in other layouts, and what a rule chose, told by rollout and
position.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from reasontrain.algo.evidence import EVIDENCE
from reasontrain.types import Batch, TokenKind

Token = tuple[int, int]
"""(rollout id, position in the rollout, from 1): what no layout changes."""


class Steps:
    """Makes steps and lays them out anew."""

    @staticmethod
    def of(
        kinds: list[list[int]], rollouts: list[int] | None = None, **evidence: list[list[float]]
    ) -> Batch:
        """A step from lists; every list of a column has one entry per token."""
        num = len(kinds)
        zeros_B = torch.zeros(num)
        return Batch(
            ids_BT=torch.zeros(num, len(kinds[0]), dtype=torch.long),
            kind_BT=torch.tensor(kinds),
            rollout_B=torch.tensor(rollouts or list(range(num))),
            group_B=torch.zeros(num, dtype=torch.long),
            reward_B=zeros_B,
            advantage_B=zeros_B,
            pair_B=torch.arange(num),
            evidence={name: torch.tensor(rows) for name, rows in evidence.items()},
            seed=7,
            step=3,
        )

    @staticmethod
    def random(seed: int, num_rollouts: int = 5) -> Batch:
        """Many lengths (some without a response), forced and tool tokens, ties, outliers, and NaN
        where no rule may look.
        """
        draw = torch.Generator().manual_seed(seed)
        kinds = []
        for _ in range(num_rollouts):
            num_prompt, num_response = (
                int(torch.randint(low, high, (), generator=draw)) for low, high in ((1, 4), (0, 15))
            )
            middle = torch.tensor(
                [
                    TokenKind.RESPONSE,
                    TokenKind.RESPONSE,
                    TokenKind.RESPONSE,
                    TokenKind.SOFT,
                    TokenKind.FORCED,
                    TokenKind.TOOL,
                    TokenKind.MASKED,
                ]
            )
            response = middle[torch.randint(7, (num_response,), generator=draw)].tolist()
            kinds.append(
                [int(TokenKind.PROMPT)] * num_prompt
                + response
                + [int(TokenKind.PAD)] * (18 - num_prompt - num_response)
            )
        rollouts = (torch.randperm(40, generator=draw)[:num_rollouts] + 100 * seed).tolist()
        batch = Steps.of(kinds, rollouts)
        columns = {}
        for name, row in EVIDENCE.items():
            grid_BT = torch.randint(0, 24, batch.ids_BT.shape, generator=draw) / 8
            if name == "ce_logscore":
                grid_BT = grid_BT + 1 / 8  # a rejected side of which every score is 1 is an error
            outlier_BT = torch.rand(batch.ids_BT.shape, generator=draw) < 0.04
            sign = -1 if row.bounds[1] == 0 else 1
            columns[name] = torch.where(
                batch.is_response_BT,
                sign * torch.where(outlier_BT, grid_BT * 9, grid_BT),
                torch.nan,
            )
        advantage_B = torch.randint(1, 5, (num_rollouts,), generator=draw) / 2 - 2.25
        return replace(
            batch.with_evidence(columns),
            advantage_B=advantage_B,
            correct_B=torch.rand(num_rollouts, generator=draw) < 0.5,
            seed=seed,
            step=seed % 5,
        )

    @staticmethod
    def padded(batch: Batch, left: int, right: int) -> Batch:
        """The same step with more padding on either side."""

        def pad(column_BT: Tensor, value: float) -> Tensor:
            return torch.nn.functional.pad(column_BT, (left, right), value=value)

        evidence = {name: pad(column_BT, torch.nan) for name, column_BT in batch.evidence.items()}
        return replace(
            batch,
            ids_BT=pad(batch.ids_BT, 0),
            kind_BT=pad(batch.kind_BT, TokenKind.PAD),
            evidence=evidence,
        )

    @staticmethod
    def scaled(batch: Batch, factor: float) -> Batch:
        """The same step with its evidence in another unit."""
        return replace(
            batch, evidence={name: column_BT * factor for name, column_BT in batch.evidence.items()}
        )

    @staticmethod
    def tokens(batch: Batch) -> Iterator[tuple[Token, int, int]]:
        """Every response token, with its place in the tensors."""
        for line, rollout in enumerate(batch.rollout_B.tolist()):
            position = 0
            for place, kind in enumerate(batch.kind_BT[line].tolist()):
                position += kind != TokenKind.PAD
                if kind in (TokenKind.RESPONSE, TokenKind.SOFT):
                    yield (rollout, position), line, place

    @staticmethod
    def chosen(batch: Batch, weight_BT: Tensor) -> dict[Token, float]:
        """The weights that are not zero; fails if one lies outside the response."""
        found = {token: float(weight_BT[line, place]) for token, line, place in Steps.tokens(batch)}
        found = {token: weight for token, weight in found.items() if weight != 0}
        assert len(found) == int((weight_BT != 0).sum()), "a token outside the response was chosen"
        return found


@pytest.fixture(scope="session")
def steps() -> type[Steps]:
    return Steps
