"""Random tokens of each rollout: the control for rules with the same keep_ratio."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from jaxtyping import Float

from reasontrain.algo._draws import uniform_BT
from reasontrain.algo._top_k import num_kept, top_rows_per_rollout
from reasontrain.rng import Stream
from reasontrain.types import Batch, Ratio

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Random:
    """Keep a random max(1, floor(keep_ratio * m)) of the m response tokens of each rollout.

    All subsets of that size are equally likely; a new one is drawn each step.
    """

    required_evidence: ClassVar[frozenset[str]] = frozenset()
    kind: Literal["random"] = "random"
    keep_ratio: Ratio = 0.5

    def kept_share(self, progress: float) -> float:
        """Fraction of response tokens that get a weight, the same throughout the run."""
        return self.keep_ratio

    def __call__(self, batch: Batch) -> Float[Tensor, "B T"]:
        among_BT = batch.is_response_BT
        num_B = num_kept(self.keep_ratio, among_BT.sum(1))
        return top_rows_per_rollout(
            uniform_BT(batch, Stream.RANDOM_TOKENS), among_BT, num_B, batch.token_order_BT
        )
