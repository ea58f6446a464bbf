"""PRIOR: weight tokens by how unpredictable they are without the condition, and its controls.

arXiv 2505.08971.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from annotated_types import Ge
from jaxtyping import Bool, Float

from reasontrain.algo.token_selection.scores import weight_mass
from reasontrain.algo.token_selection.scores.normalise import finite
from reasontrain.types import Batch, NotNegative, Probability, Stats

if TYPE_CHECKING:
    from torch import Tensor

Mode = Literal["prior", "flipped", "contrast"]

_NEEDS: Mapping[Mode, frozenset[str]] = {
    "prior": frozenset({"uncond_logp"}),
    "flipped": frozenset({"uncond_logp"}),
    "contrast": frozenset({"uncond_logp", "ref_logp"}),
}


@dataclass(frozen=True, kw_only=True)
class Prior:
    """Weights k w / sum(w) over the k response tokens of each rollout.

    P is the probability under a reference that does not see the condition (prompt or image).

    - `prior`: w = (1 - P)^alpha, the paper's rule (alpha 1, neither floor nor cap)
    - `flipped`: w = P^alpha, the opposite control
    - `contrast`: w = clip(log p - log P, low, high), with p the frozen reference that sees the
      condition (ours, after CAL, arXiv 2405.17871, which uses raw logits). It measures dependence
      on the condition, whereas 1 - P is also high for tokens that are random under any condition.

    The weights of a rollout sum to its number of tokens, so with `loss_aggregation:
    response_token_mean` equal weights are plain maximum likelihood (with `seq_mean_token_mean`,
    after the mean of each rollout). `floor` is a lower bound of raw weights. No weight is above
    `cap`: what it takes away goes to the other tokens (see `scores.weight_mass`). The first
    `skip_first` tokens have weight 1, and with `last: plain` the last one too, since a low weight
    there may teach the model not to stop. A rollout whose weights sum to less than a millionth of k
    gets uniform weights and is counted in the metrics. Raises RunError if evidence is not finite.
    """

    kind: Literal["prior"] = "prior"
    mode: Mode = "prior"
    alpha: NotNegative = 1.0
    low: NotNegative = 0.0
    high: NotNegative = 5.0
    floor: Probability = 0.0
    cap: Annotated[float, Ge(1)] | None = None
    skip_first: Annotated[int, Ge(0)] = 0
    last: Literal["scored", "plain"] = "scored"

    def __post_init__(self) -> None:
        if self.mode == "contrast" and self.low >= self.high:
            raise ValueError(
                f"low {self.low} is not below high {self.high}: every token would weigh the same"
            )

    @property
    def required_evidence(self) -> frozenset[str]:
        """The evidence that the mode reads."""
        return _NEEDS[self.mode]

    def kept_share(self, progress: float) -> float:
        """1: every response token may have a weight."""
        return 1.0

    def __call__(self, batch: Batch) -> Float[Tensor, "B T"]:
        among_BT = batch.is_response_BT
        weight_BT = weight_mass.spread(
            self.raw(batch),
            among_BT,
            floor=self.floor,
            cap=self.cap,
            plain_BT=self._plain(among_BT),
        )
        return weight_BT.float()

    def raw(self, batch: Batch) -> Float[Tensor, "B T"]:
        """w before any normalisation, in float64.

        1 - P is computed from log P by expm1, which keeps the digits near P = 1.
        """
        among_BT = batch.is_response_BT
        logp_BT = finite(batch.uncond_logp_BT, among_BT, "uncond_logp").clamp(max=0.0)
        match self.mode:
            case "prior":
                return (-logp_BT.expm1()) ** self.alpha
            case "flipped":
                return (self.alpha * logp_BT).exp()
            case "contrast":
                return (finite(batch.ref_logp_BT, among_BT, "ref_logp") - logp_BT).clamp(
                    self.low, self.high
                )

    def metrics(self, batch: Batch) -> Stats:
        """Mean P, share of P above 0.99, and number of degenerate rollouts.

        High values mean that the reference has memorised the responses.
        """
        among_BT = batch.is_response_BT
        p_N = batch.uncond_logp_BT[among_BT].double().exp()
        free_BT = among_BT & ~self._plain(among_BT)
        flat_B = weight_mass.degenerate(self.raw(batch).clamp(min=self.floor), free_BT)
        return {
            "uncond_p_mean": float(p_N.mean()) if len(p_N) else 0.0,
            "uncond_p_above_99": float((p_N > 0.99).double().mean()) if len(p_N) else 0.0,
            "degenerate_rollouts": float(flat_B.sum()),
        }

    def _plain(self, among_BT: Bool[Tensor, "B T"]) -> Bool[Tensor, "B T"]:
        """Tokens whose weight is 1 regardless of evidence."""
        place_BT = among_BT.long().cumsum(1)
        last_BT = (
            place_BT == among_BT.sum(1, keepdim=True)
            if self.last == "plain"
            else torch.zeros_like(among_BT)
        )
        return among_BT & ((place_BT <= self.skip_first) | last_BT)
