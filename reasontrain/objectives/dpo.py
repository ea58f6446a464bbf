"""Direct preference optimisation, with a weight for every token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from reasontrain.types import Losses, Positive, Responses


@dataclass(frozen=True, kw_only=True)
class Dpo:
    """-log sigmoid(r_chosen - r_rejected) with r = beta sum_t w_t log(pi / pi_ref) (DPO, arXiv 2305.18290, eq. 7).

    Weights of one are DPO itself; a weight of 1 - s on the rejected side is cDPO (arXiv 2411.19943). Sums are over response rows,
    without a length in the denominator.
    """

    unit: ClassVar[Literal["pair"]] = "pair"
    teacher: ClassVar[bool] = False
    follows_sampler: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset({"ref_logp"})
    kind: Literal["dpo"] = "dpo"
    beta: Positive = 0.1

    def __call__(self, seen: Responses) -> Losses:
        """One loss per pair; the statistics are the margin, how often the chosen side wins, and both unweighted log-probs."""
        delta_N = torch.where(seen.weight_N != 0, seen.logp_N - seen.columns.ref_logp_N, 0)
        reward_P2 = self.beta * seen.sums(seen.weight_N * delta_N).view(-1, 2)
        margin_P = reward_P2[:, 0] - reward_P2[:, 1]
        logp_P2 = seen.sums(seen.logp_N.detach()).view(-1, 2)
        stats = {"margin": margin_P, "accuracy": margin_P > 0, "chosen_logp": logp_P2[:, 0], "rejected_logp": logp_P2[:, 1]}
        return Losses(loss=-torch.nn.functional.logsigmoid(margin_P), stats=stats)
