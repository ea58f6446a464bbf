"""High-entropy tokens of the step."""

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
class TopEntropy:
    """Keep the `keep_ratio` of the step's response tokens with the highest entropy.

    "80/20", arXiv 2506.01939. Exactly max(1, floor(keep_ratio * m)) of the m tokens are kept,
    ranked over the whole step, so a rollout of low entropy may keep none.
    """

    required_evidence: ClassVar[frozenset[str]] = frozenset({"entropy"})
    kind: Literal["top_entropy"] = "top_entropy"
    keep_ratio: Ratio = 0.2

    def kept_share(self, progress: float) -> float:
        """Fraction of response tokens that get a weight, the same throughout the run."""
        return self.keep_ratio

    def __call__(self, batch: Batch) -> Float[Tensor, "B T"]:
        among_BT = batch.is_response_BT
        entropy_BT = finite(batch.entropy_BT, among_BT, "entropy")
        num = int(num_kept(self.keep_ratio, among_BT.sum().reshape(1)))
        return top_rows(entropy_BT, among_BT, num, batch.token_order_BT)
