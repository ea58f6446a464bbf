"""Advantages of tokens: from a rollout's advantage and evidence to a number for each token.

They are computed once per step, on the driver, after token selection, which goes by the advantages
of rollouts, and before the correction of the sampler. Each is a frozen dataclass: one file, and one
name in the union `TokenAdvantage`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from jaxtyping import Float

from reasontrain.algo.token_advantage.entropy import EntropyAdvantage
from reasontrain.algo.token_advantage.gtpo import Gtpo
from reasontrain.types import Batch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class RolloutAdvantage:
    """Every token has the advantage of its rollout."""

    required_evidence: ClassVar[frozenset[str]] = frozenset()
    kind: Literal["rollout"] = "rollout"

    def __call__(self, batch: Batch) -> Float[Tensor, "B T"]:
        """Advantages in float64."""
        return batch.advantage_B.double()[:, None].expand(batch.ids_BT.shape)


TokenAdvantage = RolloutAdvantage | EntropyAdvantage | Gtpo

__all__ = ["EntropyAdvantage", "Gtpo", "RolloutAdvantage", "TokenAdvantage"]
