"""cDPO's token weights: rejected tokens are weighted by the contrast of two models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from jaxtyping import Bool, Float

from reasontrain.algo.token_selection.scores.contrast import scored, weights
from reasontrain.algo.token_selection.scores.normalise import finite
from reasontrain.types import Batch, Probability, RunError, Stats

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """Weight 1 - s at rejected tokens and 1 at chosen tokens (cDPO, arXiv 2411.19943).

    s is the contrastive score, stored as its logarithm `ce_logscore`. With `only_neg` off, chosen
    tokens have weight s, which the paper advises against. `eos_weight` replaces the weight of the
    last token of a rejected response, for models that have not learned to stop (the release sets it
    to 1). Weights are not normalised: their mean is below 1. Raises RunError if a score that is
    read is not finite, or if all rejected tokens of the step have weight 0.
    """

    required_evidence: ClassVar[frozenset[str]] = frozenset({"ce_logscore"})
    kind: Literal["contrast"] = "contrast"
    only_neg: bool = True
    eos_weight: Probability | Literal["score"] = "score"

    def kept_share(self, progress: float) -> float:
        """1: every response token may have a weight."""
        return 1.0

    def __call__(self, batch: Batch) -> Float[Tensor, "B T"]:
        among_BT = batch.is_response_BT
        rejected_BT = _rejected(batch)
        read_BT = rejected_BT if self.only_neg else among_BT
        logscore_BT = finite(batch.ce_logscore_BT, read_BT, "ce_logscore").float()
        weight_BT = torch.where(rejected_BT, weights(logscore_BT), among_BT.float())
        if self.eos_weight != "score":
            weight_BT = weight_BT.masked_fill(rejected_BT & _last(among_BT), self.eos_weight)
        if not self.only_neg:
            weight_BT = torch.where(
                among_BT & ~rejected_BT, logscore_BT.clamp(max=0.0).exp(), weight_BT
            )
        if rejected_BT.any() and not weight_BT[rejected_BT].any():
            raise RunError(
                "the weights of all rejected tokens of a step sum to zero: every score is "
                "1, so the two models of the contrast "
                "are sure of every token; look at the scores before training on them"
            )
        return weight_BT.detach()

    def metrics(self, batch: Batch) -> Stats:
        """Metrics of the scores of rejected tokens."""
        return scored(batch.ce_logscore_BT[_rejected(batch)])


def _rejected(batch: Batch) -> Bool[Tensor, "B T"]:
    """True at the tokens of rejected responses."""
    assert batch.pair_B is not None, "the recipe refuses contrastive weights without pairs"
    return batch.is_response_BT & (batch.pair_B[:, None] % 2 == 1)


def _last(among_BT: Bool[Tensor, "B T"]) -> Bool[Tensor, "B T"]:
    """True at the last response token of each rollout."""
    return among_BT & (among_BT.flip(1).long().cumsum(1).flip(1) == 1)
