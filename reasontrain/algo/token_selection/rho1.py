"""Rho-1: tokens with a large excess loss over a better reference model (arXiv 2404.07965)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from jaxtyping import Float

from reasontrain.algo._top_k import num_kept, top_rows
from reasontrain.algo.token_selection.scores.normalise import finite
from reasontrain.types import Batch, Ratio

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Rho1:
    """Keep the `keep_ratio` of the step's response tokens with the largest excess loss.

    Excess loss is l - l_reference = log p_reference - log p. Exactly max(1, floor(keep_ratio * m))
    of the m tokens are kept, ranked over the whole step. The `reference` of the recipe is a model
    tuned on clean data. The sign is the opposite of ssToken's, whose history is a worse model.
    Raises RunError if evidence is not finite.
    """

    required_evidence: ClassVar[frozenset[str]] = frozenset({"old_logp", "ref_logp"})
    kind: Literal["rho1"] = "rho1"
    keep_ratio: Ratio = 0.6

    def kept_share(self, progress: float) -> float:
        """Fraction of response tokens that get a weight, the same throughout the run."""
        return self.keep_ratio

    def __call__(self, batch: Batch) -> Float[Tensor, "B T"]:
        among_BT = batch.is_response_BT
        reference_BT = finite(batch.ref_logp_BT, among_BT, "ref_logp")
        now_BT = finite(batch.old_logp_BT, among_BT, "old_logp")
        num = int(num_kept(self.keep_ratio, among_BT.sum().reshape(1)))
        return top_rows(reference_BT - now_BT, among_BT, num, batch.token_order_BT)
