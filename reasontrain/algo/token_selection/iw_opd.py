"""IW-OPD: on-policy distillation, weighted by how little a prefix has strayed from the teacher.

arXiv 2606.22600.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from jaxtyping import Float

from reasontrain.algo.token_selection.scores.normalise import finite
from reasontrain.algo.token_selection.scores.soft_weights import soft_weights
from reasontrain.types import Batch, NotNegative

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class IwOpd:
    """Weight 1 + gamma (1 - sum_{j<t} |A_j| / sum_j |A_j|) at token t of a response.

    Importance-weighted on-policy distillation, arXiv 2606.22600, as TRL's `IWOPDTrainer` computes
    it. A = log q - log p at the sampled token, q the teacher and p the student before the step. The
    first token has weight 1 + gamma, and the weight falls to 1 as the prefix uses up the
    disagreement of the response: late tokens continue a prefix that the teacher would not have
    written. A response without any disagreement has weight 1 + gamma everywhere.

    The paper and TRL apply it to the sampled-token objective (`objective.kind: sampled_distill`);
    it weighs the divergence of `distill` just as well. Weights are not normalised: their mean is
    between 1 and 1 + gamma. Raises RunError if evidence is not finite.

    Attributes:
        gamma: what the weight of the first token exceeds 1 by.
    """

    required_evidence: ClassVar[frozenset[str]] = frozenset({"teacher_logp", "old_logp"})
    kind: Literal["iw_opd"] = "iw_opd"
    gamma: NotNegative = 0.5

    def kept_share(self, progress: float) -> float:
        """1: every response token has a weight."""
        return 1.0

    def __call__(self, batch: Batch) -> Float[Tensor, "B T"]:
        among_BT = batch.is_response_BT
        teacher_BT = finite(batch.teacher_logp_BT, among_BT, "teacher_logp")
        gap_BT = (teacher_BT - finite(batch.old_logp_BT, among_BT, "old_logp")).abs()
        sum_BT = gap_BT.cumsum(1)
        total_B1 = sum_BT[:, -1:]
        strayed_BT = (sum_BT - gap_BT) / torch.where(total_B1 > 0, total_B1, 1.0)
        return soft_weights(1 + self.gamma * (1 - strayed_BT), among_BT)
