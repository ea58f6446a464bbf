"""FiRe-OPD: drop rollouts that the teacher finds unlikely, then weigh tokens by both entropies.

arXiv 2606.02684.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from jaxtyping import Bool, Float

from reasontrain.algo.token_selection.scores.normalise import Scope, finite, quantile
from reasontrain.algo.token_selection.scores.soft_weights import mean_one, soft_weights
from reasontrain.types import Batch, NotNegative, Probability

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class FireOpd:
    """Weight (1 + alpha (1 - H_T / max H_T)) (1 + beta H / max H), scaled to mean 1.

    "Filter, then Reweight", arXiv 2606.02684, with the defaults of its code. First, rollouts whose
    mean log-prob under the teacher is below the `drop` quantile of the step get weight 0. Then a
    token weighs more where the teacher is sure (H_T, its entropy) and the student (H, before the
    step) is not; maxima are over the tokens that remain. Sources differ in the scope of the mean:
    the code's is all tokens that remain (`normalise: step`), the paper's each response
    (`normalise: rollout`). Both apply it to the sampled-token objective (`objective.kind:
    sampled_distill`). Dropped rollouts cost evidence, which decides about them, and leave the
    denominators of the loss. Raises RunError if evidence is not finite.

    Attributes:
        alpha: weight of the teacher's certainty.
        beta: weight of the student's uncertainty.
        drop: share of the rollouts that is dropped: those below this quantile.
        normalise: scope of the mean of 1: all tokens that remain (`step`), or each response's.
    """

    required_evidence: ClassVar[frozenset[str]] = frozenset(
        {"entropy", "teacher_entropy", "teacher_logp"}
    )
    kind: Literal["fire_opd"] = "fire_opd"
    alpha: NotNegative = 1.0
    beta: NotNegative = 1.0
    drop: Probability = 0.2
    normalise: Scope = "step"

    def kept_share(self, progress: float) -> float:
        """1: dropped rollouts may be short."""
        return 1.0

    def __call__(self, batch: Batch) -> Float[Tensor, "B T"]:
        kept_BT = batch.is_response_BT & self.remaining(batch)[:, None]
        sure_BT = 1 - _share_of_max(batch.teacher_entropy_BT, kept_BT, "teacher_entropy")
        unsure_BT = _share_of_max(batch.entropy_BT, kept_BT, "entropy")
        weight_BT = (1 + self.alpha * sure_BT) * (1 + self.beta * unsure_BT)
        if self.normalise == "step":
            return soft_weights(mean_one(weight_BT, kept_BT), kept_BT)
        total_B1 = weight_BT.masked_fill(~kept_BT, 0).sum(1, keepdim=True)
        size_B1 = kept_BT.sum(1, keepdim=True)
        return soft_weights(weight_BT * size_B1 / torch.where(size_B1 > 0, total_B1, 1.0), kept_BT)

    def remaining(self, batch: Batch) -> Bool[Tensor, " B"]:
        """True at rollouts that are not dropped; a rollout without tokens is."""
        among_BT = batch.is_response_BT
        logp_BT = finite(batch.teacher_logp_BT, among_BT, "teacher_logp")
        size_B = among_BT.sum(1)
        mean_B = logp_BT.sum(1) / size_B.clamp(min=1)
        return (size_B > 0) & (mean_B >= quantile(mean_B[None], (size_B > 0)[None], self.drop))


def _share_of_max(
    entropy_BT: Float[Tensor, "B T"], among_BT: Bool[Tensor, "B T"], name: str
) -> Float[Tensor, "B T"]:
    """Entropy as a share of its maximum in the mask, in float64; zeros if that is 0."""
    entropy_BT = finite(entropy_BT, among_BT, name)
    most = entropy_BT.max() if entropy_BT.numel() else entropy_BT.sum()
    return entropy_BT / torch.where(most > 0, most, 1.0)
