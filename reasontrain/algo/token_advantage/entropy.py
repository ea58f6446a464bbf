"""Advantages raised where the policy is uncertain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import torch
from annotated_types import Gt
from jaxtyping import Float

from reasontrain.algo.token_selection.scores.normalise import finite
from reasontrain.types import Batch, NotNegative

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class EntropyAdvantage:
    """A + min(alpha H, |A| / kappa), with H the policy's entropy before the step, in nats.

    Cheng et al. 2025, "Reasoning with Exploration: An Entropy Perspective", arXiv 2506.14758. The
    addition has no gradient and never exceeds a share 1 / kappa of |A|, so it changes no sign: it
    encourages uncertain tokens of right answers and spares those of wrong ones. `alpha` 0.4 and
    `kappa` 2 are the paper's for GRPO.

    Attributes:
        alpha: factor of the entropy.
        kappa: at most |A| / kappa is added.
    """

    required_evidence: ClassVar[frozenset[str]] = frozenset({"entropy"})
    kind: Literal["entropy"] = "entropy"
    alpha: NotNegative = 0.4
    kappa: Annotated[float, Gt(1)] = 2.0

    def __call__(self, batch: Batch) -> Float[Tensor, "B T"]:
        """Advantages in float64."""
        advantage_B1 = batch.advantage_B.double()[:, None]
        entropy_BT = finite(batch.entropy_BT, batch.is_response_BT, "entropy")
        bonus_BT = torch.minimum(self.alpha * entropy_BT, advantage_B1.abs() / self.kappa)
        return advantage_B1 + bonus_BT
