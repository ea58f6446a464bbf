"""The policy gradient with a penalty where an update would cost the most entropy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from jaxtyping import Float

from reasontrain.algo._top_k import top_rows
from reasontrain.algo.objectives.reference_kl import EntropyBonus
from reasontrain.algo.token_selection.scores.covariance import covariances
from reasontrain.types import Batch, Losses, NotNegative, Probability, TokenFields, TokenStats

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class KlCov(EntropyBonus):
    """-r A with r = p / p_old, plus old_kl |log r| at the tokens of the greatest covariance.

    KL-Cov, Cui et al. 2025, arXiv 2505.22617: of the m selected tokens of a step, the max(1,
    floor(share m)) with the greatest term of the covariance of advantage and log-prob, (A - mean A)
    (log p - mean log p), are held near the policy before the step. No ratio is clipped. `share`
    2e-4 and `old_kl` 1 are verl's; the paper has 2e-3 for its 7B model. With one update per batch
    log r is 0 and so is the slope of the penalty: take several.

    Departure: tokens are chosen once per step by the log-probs before it; verl chooses anew in each
    update.

    Attributes:
        share: share of the selected tokens of a step that are held.
        old_kl: factor of |log r| at them.
    """

    granularity: ClassVar[Literal["token"]] = "token"
    score_at_sampling_temperature: ClassVar[bool] = True
    kind: Literal["kl_cov"] = "kl_cov"
    share: Probability = 2e-4
    old_kl: NotNegative = 1.0

    @property
    def required_evidence(self) -> frozenset[str]:
        """Old log-probs, and those of the reference if they are compared with."""
        return frozenset({"old_logp"}) | self.reference_evidence

    def penalty(self, batch: Batch, weight_BT: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        """The factor of |log r| at each token: `old_kl` where it is chosen, else 0.

        Args:
            batch: all rollouts of the step.
            weight_BT: the selection's weights; tokens without one are not counted.
        """
        among_BT = batch.is_response_BT & (weight_BT != 0)
        num = max(1, int(self.share * int(among_BT.sum()) + 1e-6))
        covariance_BT = covariances(batch, among_BT)
        return self.old_kl * top_rows(covariance_BT, among_BT, num, batch.token_order_BT)

    def __call__(self, policy: TokenStats, batch: TokenFields) -> Losses:
        """One loss per token; metrics: the ratio, and the share of tokens that are held."""
        assert batch.penalty_N is not None, "the learner asks `penalty` for the factors of a step"
        log_ratio_N = self.clamped(policy.logp_N - batch.old_logp_N)
        ratio_N = torch.exp(log_ratio_N)
        losses = Losses(
            loss=batch.penalty_N * log_ratio_N.abs() - ratio_N * batch.advantage_N,
            stats={"ratio": ratio_N, "held": batch.penalty_N != 0},
        )
        losses = self.penalised(losses, policy.logp_N, batch.old_logp_N, batch, policy)
        return self.with_bonus(losses, policy)
