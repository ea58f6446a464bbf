"""Penalties beside the policy gradient: the KL to a reference, and a bonus for entropy."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Float

from reasontrain.types import Losses, NotNegative, Positive, TokenFields, TokenStats

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class ReferenceKl:
    """Settings of a penalty, reference_kl * KL(p || p_ref), that keeps a policy near a reference.

    Estimators of `kl_estimator`, with r = p_ref / p at the sampled token (Schulman 2020,
    "Approximating KL Divergence"). Their means over tokens drawn from p are KL(p || p_ref), except
    for `k2`, which is near it where p is near p_ref; their gradients differ:

    - `k3`, r - 1 - log r, is GRPO as published (arXiv 2402.03300, eq. 4). Over tokens drawn from p,
      the expected gradient is that of KL(p_ref || p).
    - `k3_ratio` multiplies k3 by the ratio p / p_old, whose gradient counts too. The expected
      gradient is that of KL(p || p_ref), also after several updates, as in DeepSeek-V3.2 and TRL
      (`use_bias_correction_kl`).
    - `k2`, (log r)^2 / 2, verl's `mse`: the expected gradient is that of KL(p || p_ref) while the
      tokens are the policy's own, so in the first update of a batch.
    - `exact` is KL(p || q) over the whole vocabulary, with its own gradient and without variance. q
      is the recipe's `teacher` instead of its `reference`, because its whole distribution is read:
      the reference model, or another one to distil from in the same step (KDRL, arXiv 2506.02208).

    log (p / p_ref) alone (k1) is not among them: as a loss its expected gradient is 0.

    The penalty is part of a token's loss. By default, tokens that the selection rule leaves out are
    not penalised, and a fractional weight scales the penalty as it does the loss. With
    `penalised_tokens: all` it is at every response token of the rollouts that a filter has left,
    divided as if all were selected, as in TRL and verl; metrics of the objective are then means
    over all of them. `max_log_ratio` clamps every log-ratio, to p_old and to p_ref, to
    +-max_log_ratio (verl: 20); beyond it there is no gradient.

    Attributes:
        reference_kl: factor of the KL penalty to the reference; 0: none, and no reference.
        kl_estimator: form of the penalty, as above.
        penalised_tokens: tokens at which penalties are: selected ones, or all of the responses.
        max_log_ratio: bound of every log-ratio, in nats; null: none.
    """

    reference_kl: NotNegative = 0.0
    kl_estimator: Literal["k3", "k3_ratio", "k2", "exact"] = "k3"
    penalised_tokens: Literal["selected", "all"] = "selected"
    max_log_ratio: Positive | None = None

    @property
    def needs_teacher(self) -> bool:
        """True if the penalty reads the whole distribution of a teacher."""
        return self.reference_kl > 0 and self.kl_estimator == "exact"

    @property
    def reference_evidence(self) -> frozenset[str]:
        """The evidence that `penalised` reads."""
        sampled = self.reference_kl > 0 and not self.needs_teacher
        return frozenset({"ref_logp"}) if sampled else frozenset()

    @property
    def penalises(self) -> bool:
        """True if a term of the loss does not depend on advantages."""
        return self.reference_kl > 0

    @property
    def penalises_all(self) -> bool:
        """True if that term is at all response tokens, whichever are selected."""
        return self.penalises and self.penalised_tokens == "all"

    def clamped(self, log_ratio_N: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
        """Log-ratios within +-max_log_ratio, in nats."""
        bound = self.max_log_ratio
        return log_ratio_N if bound is None else log_ratio_N.clamp(-bound, bound)

    def penalised(
        self,
        losses: Losses,
        logp_N: Float[Tensor, " N"],
        old_logp_N: Float[Tensor, " N"],
        fields: TokenFields,
        policy: TokenStats | None = None,
    ) -> Losses:
        """The losses with the penalty, and its metric; unchanged if `reference_kl` is 0.

        Args:
            losses: loss and metrics of each token.
            logp_N: the policy's log-probs.
            old_logp_N: log-probs of the policy that drew the tokens.
            fields: fields of the tokens, with `ref_logp` if the penalty reads it.
            policy: the policy's statistics, for `exact`.

        Returns:
            Losses with the metric `reference_kl`: the value of k3, or the exact divergence.
        """
        if self.reference_kl == 0:
            return losses
        if self.kl_estimator == "exact":
            assert policy is not None, "an objective of sequences refuses `exact`"
            value_N = penalty_N = policy.kl_reverse_N
        else:
            log_ratio_N = self.clamped(fields.ref_logp_N - logp_N)
            value_N = penalty_N = k3(log_ratio_N)
            if self.kl_estimator == "k3_ratio":
                penalty_N = value_N * torch.exp(self.clamped(logp_N - old_logp_N))
            elif self.kl_estimator == "k2":
                penalty_N = log_ratio_N.square() / 2
        return Losses(
            loss=losses.loss + self.reference_kl * penalty_N,
            stats={**losses.stats, "reference_kl": value_N},
        )


@dataclass(frozen=True, kw_only=True)
class EntropyBonus(ReferenceKl):
    """Settings of the bonus -entropy_bonus * H, which keeps a policy from becoming certain.

    H is the entropy of the policy's next-token distribution at the sampler's temperature, in nats,
    with its own gradient over the vocabulary (TRL: `entropy_coef`; verl: `entropy_coeff`). It is at
    the tokens of `penalised_tokens`, divided as the loss is.

    Attributes:
        entropy_bonus: factor of the entropy; 0: no bonus.
    """

    entropy_bonus: NotNegative = 0.0

    @property
    def penalises(self) -> bool:
        """True if a term of the loss does not depend on advantages."""
        return self.reference_kl > 0 or self.entropy_bonus > 0

    def with_bonus(self, losses: Losses, policy: TokenStats) -> Losses:
        """The losses less the bonus, and the metric `policy_entropy`; unchanged if it is 0."""
        if self.entropy_bonus == 0:
            return losses
        entropy_N = policy.entropy_N
        return replace(
            losses,
            loss=losses.loss - self.entropy_bonus * entropy_N,
            stats={**losses.stats, "policy_entropy": entropy_N},
        )


def k3(log_ratio_N: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
    """r - 1 - log r, from log r."""
    return torch.expm1(log_ratio_N) - log_ratio_N
