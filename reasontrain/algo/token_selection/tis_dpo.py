"""TIS-DPO: both sides of a pair, weighted by the ratio of a positive and a negative model.

arXiv 2410.04350.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from jaxtyping import Bool, Float

from reasontrain.algo._top_k import lexsort
from reasontrain.algo.token_selection.scores.normalise import finite
from reasontrain.algo.token_selection.scores.soft_weights import soft_weights
from reasontrain.types import Batch, NotNegative, Probability

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class TisDpo:
    """Weight exp(mu c) at chosen and exp(-mu c) at rejected tokens, with c = clip(s, low, high).

    Token-level importance sampling DPO, arXiv 2410.04350, with the objective `dpo`, whose log-ratio
    to the reference it weighs token by token. s = log p_positive - log p_negative of two models
    that were tuned on chosen and on rejected responses, stored as `log_ratio` (the stage
    `log_ratio` writes it). Sources differ in the transformation: `mode: exp` is the paper's, with
    our defaults of the bounds; `mode: rank` is that of the authors' code, which ranks s in a chosen
    response and -s in a rejected one and maps the ranks evenly to [1 - spread, 1 + spread].
    Departure: the paper's difference of weighted sequence divergences, which it subtracts from the
    margin, is left out. Weights are not normalised. Raises RunError if a ratio is not finite.

    Attributes:
        mode: `exp` is the paper's transformation of s, `rank` that of the authors' code.
        mu: strength of the weights, of mode `exp`.
        low: lower bound of s in nats, of mode `exp`.
        high: upper bound of s in nats, of mode `exp`.
        spread: farthest distance of a weight from 1, of mode `rank`.
    """

    required_evidence: ClassVar[frozenset[str]] = frozenset({"log_ratio"})
    kind: Literal["tis_dpo"] = "tis_dpo"
    mode: Literal["exp", "rank"] = "exp"
    mu: NotNegative = 1.0
    low: float = -0.5
    high: float = 1.5
    spread: Probability = 0.3

    def kept_share(self, progress: float) -> float:
        """1: every response token has a weight."""
        return 1.0

    def __call__(self, batch: Batch) -> Float[Tensor, "B T"]:
        assert batch.pair_B is not None, "the recipe refuses these weights without pairs"
        among_BT = batch.is_response_BT
        ratio_BT = finite(batch.log_ratio_BT, among_BT, "log_ratio")
        sign_B1 = 1.0 - 2.0 * (batch.pair_B[:, None] % 2).double()
        if self.mode == "exp":
            weight_BT = (sign_B1 * self.mu * ratio_BT.clamp(self.low, self.high)).exp()
        else:
            place_BT = _place(sign_B1 * ratio_BT, among_BT, batch)
            weight_BT = 1 - self.spread + 2 * self.spread * place_BT
        return soft_weights(weight_BT, among_BT)


def _place(
    score_BT: Float[Tensor, "B T"], among_BT: Bool[Tensor, "B T"], batch: Batch
) -> Float[Tensor, "B T"]:
    """Place of each score in its response, from 0 (lowest) to 1; 1/2 for a single token.

    Of equal scores the earlier token is the lower.
    """
    rollout_N = among_BT.nonzero()[:, 0]
    sorted_N = lexsort(rollout_N, score_BT[among_BT], batch.token_order_BT[among_BT])
    size_B = among_BT.sum(1)
    first_B = size_B.cumsum(0) - size_B
    rank_N = torch.empty_like(sorted_N)
    rank_N[sorted_N] = torch.arange(len(sorted_N), device=sorted_N.device) - first_B[rollout_N]
    share_N = rank_N.double() / (size_B[rollout_N] - 1).clamp(min=1)
    place_BT = torch.zeros_like(score_BT, dtype=torch.float64)
    place_BT[among_BT] = torch.where(size_B[rollout_N] > 1, share_N, 0.5)
    return place_BT
