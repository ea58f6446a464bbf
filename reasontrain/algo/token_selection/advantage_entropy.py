"""D3S's token level: tokens at which an uncertain policy earned or lost much."""

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
    """Keep k = max(1, floor(keep * m)) of the m response tokens of the step by |A| * H (D3S, arXiv
    2509.22115).

    A is the rollout's advantage and H the policy's entropy before the step, at the sampler's
    temperature: there is one step per batch of rollouts, so this is the formula's own policy.
    `top_scope="rollout"` ranks within each rollout. Tokens with |A| H = 0 have no gradient and
    would enlarge the average, so they are dropped even where fewer than k are left;
    `drop_zero=False` fills up with them.
    """

    required_evidence: ClassVar[frozenset[str]] = frozenset({"entropy"})
    kind: Literal["advantage_entropy"] = "advantage_entropy"
    keep_ratio: LinearSchedule = field(default_factory=lambda: LinearSchedule(init=0.1, final=0.5))
    top_scope: Scope = "step"
    drop_zero: bool = True

    def kept_share(self, progress: float) -> float:
        """The greatest share of response tokens that get a weight at this progress of the run."""
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
