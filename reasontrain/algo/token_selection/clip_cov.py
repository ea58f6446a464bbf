"""All tokens but a few random ones whose update would cost the most entropy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from jaxtyping import Float

from reasontrain.algo._draws import uniform_BT
from reasontrain.algo._top_k import top_rows
from reasontrain.algo.token_selection.scores.covariance import covariances
from reasontrain.rng import Stream
from reasontrain.types import Batch, Probability

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class ClipCov:
    """Leave out max(1, floor(share m)) of the m response tokens, at random, of high covariance.

    Clip-Cov, Cui et al. 2025, arXiv 2505.22617: candidates are the tokens whose term of the
    covariance of advantage and log-prob, (A - mean A)(log p - mean log p) over the response tokens
    of the step, lies between `low` and `high`; fewer are left out if there are fewer. Bounds and
    share are those of verl, which counts the tokens that are left out in its denominator: use
    `loss_aggregation: response_token_mean`.

    Departure: tokens are chosen once per step by the log-probs before it; verl chooses anew in each
    update, among tokens that its ratio does not clip.

    Attributes:
        share: share of the response tokens of a step that are left out.
        low: covariance above which a token is a candidate.
        high: covariance below which it is one.
    """

    required_evidence: ClassVar[frozenset[str]] = frozenset({"old_logp"})
    kind: Literal["clip_cov"] = "clip_cov"
    share: Probability = 2e-4
    low: float = 1.0
    high: float = 5.0

    def __post_init__(self) -> None:
        if self.low >= self.high:
            raise ValueError(f"low {self.low:g} is not below high {self.high:g}")

    def kept_share(self, progress: float) -> float:
        """At most all tokens; few are left out."""
        return 1.0

    def __call__(self, batch: Batch) -> Float[Tensor, "B T"]:
        """Weights 0 and 1."""
        among_BT = batch.is_response_BT
        covariance_BT = covariances(batch, batch.is_response_BT)
        candidate_BT = among_BT & (covariance_BT > self.low) & (covariance_BT < self.high)
        num = max(1, int(self.share * int(among_BT.sum()) + 1e-6))
        draw_BT = uniform_BT(batch, Stream.CLIP_COV)
        return among_BT.float() - top_rows(draw_BT, candidate_BT, num, batch.token_order_BT)
