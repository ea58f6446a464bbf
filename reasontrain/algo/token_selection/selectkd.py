"""SelecTKD: the student proposes its likeliest token, and the teacher accepts or rejects it.

arXiv 2510.24021.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from jaxtyping import Float

from reasontrain.algo.token_selection.scores.normalise import finite
from reasontrain.types import AtLeastOne, Batch, Probability, Stats

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class SelecTkd:
    """Weight 1 where the student's likeliest token is among the teacher's `top`, else `rejected`.

    SelecTKD, arXiv 2510.24021, in its greedy form: the paper takes the top 5 and weighs rejected
    tokens 0.01. `rejected: 0` is its variant that masks them. Its other variant, which accepts
    sampled candidates with probability min(1, q / p), is not implemented. Weights are not
    normalised; a rejected token with a weight counts in the denominators of the loss. A teacher of
    `teacher.top_k` ids serves if these are at least `top`.

    Attributes:
        top: likeliest ids of the teacher among which a token is accepted.
        rejected: weight of the tokens that are not; 0 masks them.
    """

    required_evidence: ClassVar[frozenset[str]] = frozenset({"teacher_rank_of_argmax"})
    kind: Literal["selectkd"] = "selectkd"
    top: AtLeastOne = 5
    rejected: Probability = 0.01

    def kept_share(self, progress: float) -> float:
        """1: the share of accepted tokens is the models', and rejected ones may have a weight."""
        return 1.0

    def __call__(self, batch: Batch) -> Float[Tensor, "B T"]:
        among_BT = batch.is_response_BT
        rank_BT = finite(batch.teacher_rank_of_argmax_BT, among_BT, "teacher_rank_of_argmax")
        weight_BT = torch.where(rank_BT <= self.top, 1.0, self.rejected)
        return torch.where(among_BT, weight_BT, 0.0).float()

    def metrics(self, batch: Batch) -> Stats:
        """Share of the response tokens that are accepted."""
        accepted_N = batch.teacher_rank_of_argmax_BT[batch.is_response_BT] <= self.top
        return {"accepted_share": float(accepted_N.double().mean())} if len(accepted_N) else {}
