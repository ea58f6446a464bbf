"""A plug-in in one file: a kind of evidence, a selection rule and an objective.

`surprise.yaml` beside it uses all three, and docs/extending.md explains the parts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from jaxtyping import Float

from reasontrain.types import (
    AtLeastOne,
    Batch,
    Losses,
    NotNegative,
    Positive,
    TokenFields,
    TokenStats,
)

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class LocalSurprise:
    """Mean of -log p, under the sampler, over a response token and the `window` - 1 before it."""

    required_evidence: ClassVar[frozenset[str]] = frozenset({"sampled_logp"})
    unit: ClassVar[Literal["nats"]] = "nats"
    bounds: ClassVar[tuple[float, float]] = (0.0, float("inf"))
    window: AtLeastOne = 4

    def __call__(self, batch: Batch) -> Float[Tensor, "B T"]:
        among_BT = batch.is_response_BT
        surprise_BT = torch.where(among_BT, -batch.sampled_logp_BT, 0.0)
        # The sum over a window is a difference of two prefix sums.
        sums_BT, counts_BT = (
            _windows(values_BT, self.window) for values_BT in (surprise_BT, among_BT.float())
        )
        return sums_BT.clamp(min=0) / counts_BT.clamp(min=1)


@dataclass(frozen=True, kw_only=True)
class Surprise:
    """Keep the response tokens whose `local_surprise` is at least `least` nats."""

    required_evidence: ClassVar[frozenset[str]] = frozenset({"local_surprise"})
    least: NotNegative = 0.1

    def kept_share(self, progress: float) -> float:
        """1, the upper bound: the share that is kept depends on the responses."""
        return 1.0

    def __call__(self, batch: Batch) -> Float[Tensor, "B T"]:
        kept_BT = batch.evidence["local_surprise"] >= self.least
        return (batch.is_response_BT & kept_BT).float()


@dataclass(frozen=True, kw_only=True)
class CappedDivergence:
    """KL(student || teacher), at most `cap` nats per token; beyond it a token has no gradient."""

    granularity: ClassVar[Literal["token"]] = "token"
    needs_teacher: ClassVar[bool] = True
    score_at_sampling_temperature: ClassVar[bool] = False
    required_evidence: ClassVar[frozenset[str]] = frozenset()
    cap: Positive = 2.0

    def __call__(self, policy: TokenStats, batch: TokenFields) -> Losses:
        divergence_N = policy.kl_reverse_N
        capped_N = divergence_N.clamp(max=self.cap)
        return Losses(
            loss=capped_N,
            stats={
                "divergence": divergence_N,
                "capped_share": (divergence_N > self.cap).float(),
            },
        )


def _windows(values_BT: Float[Tensor, "B T"], size: int) -> Float[Tensor, "B T"]:
    """Sum of each value and the `size` - 1 before it."""
    prefix_BT = values_BT.double().cumsum(1)
    before_BT = torch.nn.functional.pad(prefix_BT, (size, 0))[:, : prefix_BT.shape[1]]
    return (prefix_BT - before_BT).float()
