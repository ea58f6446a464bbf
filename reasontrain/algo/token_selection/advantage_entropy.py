"""D3S at token level: tokens with high entropy in rollouts with a large advantage."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

from jaxtyping import Float

from reasontrain.algo._top_k import num_kept, top_rows, top_rows_per_rollout
from reasontrain.algo.keep_ratio_schedule import LinearSchedule
from reasontrain.algo.token_selection.scores.normalise import Scope, finite
from reasontrain.types import Batch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class AdvantageEntropy:
    """Keep k = max(1, floor(keep_ratio * m)) of the m response tokens of the step by |A| * H.

    D3S, arXiv 2509.22115. A is the rollout's advantage and H the policy's entropy before the step,
    at the sampler's temperature; with one update per batch that is the policy of the formula.
    `top_scope="rollout"` ranks within each rollout. Tokens with |A| H = 0 have no gradient but
    would increase the denominator of the loss, so they are dropped even if fewer than k remain;
    `drop_zero=False` keeps them.
    """

    required_evidence: ClassVar[frozenset[str]] = frozenset({"entropy"})
    kind: Literal["advantage_entropy"] = "advantage_entropy"
    keep_ratio: LinearSchedule = field(default_factory=lambda: LinearSchedule(init=0.1, final=0.5))
    top_scope: Scope = "step"
    drop_zero: bool = True

    def kept_share(self, progress: float) -> float:
        """Largest fraction of response tokens that get a weight at this progress of the run."""
        return self.keep_ratio.at(progress)

    def __call__(self, batch: Batch) -> Float[Tensor, "B T"]:
        response_BT = batch.is_response_BT
        share = self.keep_ratio.at(batch.progress)
        key_BT = batch.advantage_B.double().abs()[:, None] * finite(
            batch.entropy_BT, response_BT, "entropy"
        )
        among_BT = response_BT & (key_BT > 0) if self.drop_zero else response_BT
        if self.top_scope == "rollout":
            return top_rows_per_rollout(
                key_BT, among_BT, num_kept(share, response_BT.sum(1)), batch.token_order_BT
            )
        return top_rows(
            key_BT,
            among_BT,
            int(num_kept(share, response_BT.sum().reshape(1))),
            batch.token_order_BT,
        )
