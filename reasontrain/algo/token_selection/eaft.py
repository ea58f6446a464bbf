"""EAFT: fine-tuning on written responses, weighted by the policy's entropy at each token.

arXiv 2601.02151.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from jaxtyping import Float

from reasontrain.algo.token_selection.scores.normalise import finite
from reasontrain.algo.token_selection.scores.soft_weights import soft_weights
from reasontrain.types import Batch, NotNegative, Positive

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Eaft:
    """Weight (H / divisor)^alpha at every token, H the entropy of the policy's 20 likeliest tokens.

    Entropy-Adaptive Fine-Tuning, arXiv 2601.02151: where the policy is sure and the demonstration
    says something else (a "confident conflict"), the token has little weight, which limits
    forgetting. H is in nats, before the step and without gradient. Sources differ in the `divisor`:
    3, near the largest H of log 20 = 2.996, in the authors' LLaMA-Factory (`use_eaft_loss`), and 1
    in Axolotl (`use_eaft`). `alpha: 0` is plain fine-tuning. Raises RunError if evidence is not
    finite.

    Attributes:
        alpha: exponent of the weight; 0 is plain fine-tuning.
        divisor: the entropy, in nats, whose weight is 1.
    """

    required_evidence: ClassVar[frozenset[str]] = frozenset({"entropy_top20"})
    kind: Literal["eaft"] = "eaft"
    alpha: NotNegative = 1.0
    divisor: Positive = 3.0

    def kept_share(self, progress: float) -> float:
        """1: every response token has a weight."""
        return 1.0

    def __call__(self, batch: Batch) -> Float[Tensor, "B T"]:
        among_BT = batch.is_response_BT
        entropy_BT = finite(batch.entropy_top20_BT, among_BT, "entropy_top20").clamp(min=0)
        return soft_weights((entropy_BT / self.divisor) ** self.alpha, among_BT)
