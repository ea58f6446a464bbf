"""The first tokens of each response: distillation where the teacher still knows the way.

arXiv 2605.27028.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from jaxtyping import Float

from reasontrain.types import AtLeastOne, Batch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class FirstSegment:
    """Weight 1 at the first `tokens` response tokens of each rollout, 0 after them.

    Early Stopping Rollout, arXiv 2605.27028, which takes 100: the teacher corrects a student's late
    tokens less and less, because it continues a prefix that is not its own. Departure: the paper
    stops the rollout there, which also changes what is sampled and saves its time;
    `sample.max_tokens: 100` does that, and this rule limits the loss alone. Tokens of prompts and
    tools do not count.

    Attributes:
        tokens: response tokens of each rollout that are learned.
    """

    required_evidence: ClassVar[frozenset[str]] = frozenset()
    kind: Literal["first_segment"] = "first_segment"
    tokens: AtLeastOne = 100

    def kept_share(self, progress: float) -> float:
        """1: responses may be shorter than the segment."""
        return 1.0

    def __call__(self, batch: Batch) -> Float[Tensor, "B T"]:
        among_BT = batch.is_response_BT
        return (among_BT & (among_BT.long().cumsum(1) <= self.tokens)).float()
