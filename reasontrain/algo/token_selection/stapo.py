"""All tokens but spurious ones: improbable, certain of something else, and rewarded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from jaxtyping import Float

from reasontrain.algo.token_selection.scores.normalise import finite, quantile
from reasontrain.types import Batch, Probability

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Stapo:
    """Leave out response tokens with A > 0, p < `max_probability` and H below a quantile.

    STAPO, Liu et al. 2026, arXiv 2602.15620: such tokens, about one in ten thousand, add little to
    a right answer and get an outsized gradient. A is the rollout's advantage; p and H are the
    policy's probability of the token and its entropy before the step; the quantile
    `entropy_quantile` is of the response tokens of the step. The paper divides by the tokens that
    are left: use `loss_aggregation: token_mean`.

    Attributes:
        max_probability: probability below which a token is rare.
        entropy_quantile: quantile of the entropies below which the policy is certain.
    """

    required_evidence: ClassVar[frozenset[str]] = frozenset({"entropy", "old_logp"})
    kind: Literal["stapo"] = "stapo"
    max_probability: Probability = 0.01
    entropy_quantile: Probability = 0.05

    def kept_share(self, progress: float) -> float:
        """At most all tokens; few are left out."""
        return 1.0

    def __call__(self, batch: Batch) -> Float[Tensor, "B T"]:
        """Weights 0 and 1."""
        among_BT = batch.is_response_BT
        entropy_BT = finite(batch.entropy_BT, among_BT, "entropy")
        logp_BT = finite(batch.old_logp_BT, among_BT, "old_logp")
        bound_1 = quantile(
            entropy_BT.reshape(1, -1), among_BT.reshape(1, -1), self.entropy_quantile
        )
        spurious_BT = (
            (batch.advantage_B[:, None] > 0)
            & (logp_BT.exp() < self.max_probability)
            & (entropy_BT < bound_1)
        )
        return (among_BT & ~spurious_BT).float()
