"""All response tokens: the baseline for selection rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from jaxtyping import Float

from reasontrain.types import Batch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class AllTokens:
    """Keep every response token."""

    required_evidence: ClassVar[frozenset[str]] = frozenset()
    kind: Literal["all"] = "all"

    def kept_share(self, progress: float) -> float:
        """1: every response token has a weight."""
        return 1.0

    def __call__(self, batch: Batch) -> Float[Tensor, "B T"]:
        return batch.is_response_BT.float()
