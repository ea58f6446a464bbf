"""The policy gradient with clipped ratios as constant weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from reasontrain.algo.objectives.reference_kl import EntropyBonus
from reasontrain.types import Losses, NotNegative, Positive, TokenFields, TokenStats


@dataclass(frozen=True, kw_only=True)
class Cispo(EntropyBonus):
    """-c A log p(token) with the constant c = clip(p / p_old, ratio_floor, ratio_cap).

    CISPO of MiniMax-M1, arXiv 2506.13585, eq. 4. No token loses its gradient: a ratio beyond a
    bound limits its weight. The bounds are ratios, not distances from 1: TRL's `epsilon_high` with
    `loss_type: cispo` is `ratio_cap`, and verl's `clip_ratio_high` is `ratio_cap` - 1. The paper
    has no lower bound; its upper one is not published, and 5 is TRL's recommendation. With one
    update per batch the ratio is 1 up to rounding, and the gradient is that of `reinforce`. Use
    `loss_aggregation: token_mean`, as the paper does.

    Attributes:
        ratio_cap: upper bound of the ratio as a weight.
        ratio_floor: lower bound of the ratio as a weight.
    """

    granularity: ClassVar[Literal["token"]] = "token"
    score_at_sampling_temperature: ClassVar[bool] = True
    kind: Literal["cispo"] = "cispo"
    ratio_cap: Positive = 5.0
    ratio_floor: NotNegative = 0.0

    def __post_init__(self) -> None:
        if self.ratio_floor >= self.ratio_cap:
            raise ValueError(
                f"ratio_floor {self.ratio_floor:g} is not below ratio_cap {self.ratio_cap:g}"
            )

    @property
    def required_evidence(self) -> frozenset[str]:
        """Old log-probs, and those of the reference if they are compared with."""
        return frozenset({"old_logp"}) | self.reference_evidence

    def __call__(self, policy: TokenStats, batch: TokenFields) -> Losses:
        """One loss per token; metrics: the ratio, and the tokens whose ratio is clipped."""
        logp_N = policy.logp_N
        ratio_N = torch.exp(self.clamped(logp_N.detach() - batch.old_logp_N))
        weight_N = ratio_N.clamp(self.ratio_floor, self.ratio_cap)
        losses = Losses(
            loss=-weight_N * batch.advantage_N * logp_N,
            stats={"ratio": ratio_N, "clipped": weight_N != ratio_N},
        )
        losses = self.penalised(losses, logp_N, batch.old_logp_N, batch, policy)
        return self.with_bonus(losses, policy)
