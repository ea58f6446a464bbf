"""ssToken: keep tokens that the policy has learned and that attend to the prompt.

arXiv 2510.18250.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Float

from reasontrain.algo._top_k import num_kept_up, top_rows_per_rollout
from reasontrain.algo.token_selection.scores.excess_loss import (
    Norm,
    combined,
    detrended,
    normalised,
    retrospective,
    width,
)
from reasontrain.algo.token_selection.scores.normalise import finite
from reasontrain.types import Batch, NotNegative, Probability, Ratio

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class SsToken:
    """Keep the tokens of each rollout with the largest gamma * norm(REL) + (1 - gamma) * attention.

    k = ceil(keep_ratio * m) of the m response tokens are kept. REL = log p - log p_history is the
    gain in log-prob since the history model (`history` in a recipe); attention is the share of
    attention that the token's position pays to the prompt in one layer (`importance`). `sign:
    excess` reverses REL, as one public reimplementation does. Departures, from the released code or
    our own:

    - gamma is 0 in the first `warmup` fraction of the run (the release: up to sample 10,000 of
      50,000): REL is noise there, and min-max scaling stretches noise to the full [0, 1];
    - gamma is 0 for a rollout whose REL spans less than `gate` nats, or less than rounding alone
      does (`excess_noise`, measured once after the warm-up), for the same reason. In bfloat16 the
      noise can span more than the default of `gate`; `gate: 0` turns both off;
    - `norm`: one outlier compresses all other values under `minmax` (the paper's); `detrend`
      subtracts the linear trend over the position from the attention, which otherwise prefers the
      beginning of a long response (not in the paper).

    Raises RunError if evidence is not finite at a response token.
    """

    kind: Literal["sstoken"] = "sstoken"
    keep_ratio: Ratio = 0.6
    gamma: Probability = 0.5
    sign: Literal["retrospective", "excess"] = "retrospective"
    norm: Norm = "minmax"
    warmup: Probability = 0.2
    gate: NotNegative = 0.05
    detrend: bool = False

    @property
    def required_evidence(self) -> frozenset[str]:
        """The evidence that is read at any point of the run."""
        names = {"old_logp", "history_logp"} if self.gamma else set()
        if self.gamma and self.gate:
            names.add("excess_noise")
        reads_attention = self.gamma < 1 or self.warmup or self.gate
        return frozenset(names | ({"attention"} if reads_attention else set()))

    def evidence_at(self, progress: float) -> frozenset[str]:
        """The evidence that is read at this progress: during the warm-up, attention alone."""
        if progress < self.warmup:
            return self.required_evidence & {"attention"}
        return self.required_evidence

    def kept_share(self, progress: float) -> float:
        """Fraction of response tokens that get a weight, the same throughout the run."""
        return self.keep_ratio

    def __call__(self, batch: Batch) -> Float[Tensor, "B T"]:
        among_BT = batch.is_response_BT
        num_B = num_kept_up(self.keep_ratio, among_BT.sum(1))
        return top_rows_per_rollout(self.score(batch), among_BT, num_B, batch.token_order_BT)

    def score(self, batch: Batch) -> Float[Tensor, "B T"]:
        """The score that ranks tokens, in float64; undefined outside the response."""
        among_BT = batch.is_response_BT
        required_evidence = self.evidence_at(batch.progress)
        zero_BT = torch.zeros(among_BT.shape, dtype=torch.float64, device=among_BT.device)
        excess_BT = gain_BT = attention_BT = zero_BT
        if "history_logp" in required_evidence:
            both = (
                finite(batch.old_logp_BT, among_BT, "old_logp"),
                finite(batch.history_logp_BT, among_BT, "history_logp"),
            )
            gain_BT = (
                retrospective(*both) if self.sign == "retrospective" else -retrospective(*both)
            )
            excess_BT = normalised(gain_BT, among_BT, self.norm)
        if "attention" in required_evidence:
            attention_BT = finite(batch.attention_BT, among_BT, "attention")
            attention_BT = detrended(attention_BT, among_BT) if self.detrend else attention_BT
        gamma = self.gamma if batch.progress >= self.warmup else 0.0
        gate = self.gate
        if "excess_noise" in required_evidence and among_BT.any():
            noise_BT = finite(batch.excess_noise_BT, among_BT, "excess_noise")
            gate = max(gate, float(noise_BT.max()))
        gamma_B1 = torch.where(width(gain_BT, among_BT) >= gate, gamma, 0.0).double()
        return combined(excess_BT, attention_BT, gamma_B1)
