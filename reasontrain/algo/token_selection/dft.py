"""DFT: fine-tuning on written responses, weighted by the probability of each token.

arXiv 2508.05629.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from jaxtyping import Float

from reasontrain.algo.token_selection.scores.normalise import finite
from reasontrain.algo.token_selection.scores.soft_weights import soft_weights
from reasontrain.types import Batch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Dft:
    """Weight p at every token, p its probability under the policy before the step.

    Dynamic Fine-Tuning, arXiv 2508.05629: with the objective `nll` the loss of a token is -p log p
    without gradient through the weight, so its gradient is that of -p, and tokens that the policy
    finds unlikely no longer dominate the step. `loss_aggregation: token_mean` divides by the number
    of tokens, as TRL (`loss_type: dft`) and LLaMA-Factory (`use_dft_loss`) do. Departure: with
    several updates per batch p stays that of the policy before the first. Raises RunError if
    evidence is not finite.
    """

    required_evidence: ClassVar[frozenset[str]] = frozenset({"old_logp"})
    kind: Literal["dft"] = "dft"

    def kept_share(self, progress: float) -> float:
        """1: every response token has a weight."""
        return 1.0

    def __call__(self, batch: Batch) -> Float[Tensor, "B T"]:
        among_BT = batch.is_response_BT
        return soft_weights(finite(batch.old_logp_BT, among_BT, "old_logp").exp(), among_BT)
