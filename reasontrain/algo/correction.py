"""Correction for rollouts that were sampled by other probabilities than the learner's.

The sampler rounds differently from the learner, and may hold older weights. A correction is a
constant weight w per token, from the ratio p_old / p_sampler of the learner's log-probs before the
step and the sampler's. It multiplies advantages: -min(r w A, clip(r) w A) is w times the clipped
loss for every w >= 0, so the loss is corrected beside the clip and not within it, penalties are not
multiplied, and no denominator changes: a token of weight 0 still counts in the mean of its step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from jaxtyping import Float

from reasontrain.types import Batch, NotNegative, Positive, Stats

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class NoCorrection:
    """Weight 1 at every token."""

    required_evidence: ClassVar[frozenset[str]] = frozenset()
    kind: Literal["none"] = "none"

    def __call__(self, batch: Batch) -> Float[Tensor, "B T"]:
        """Ones, in float64."""
        return torch.ones(batch.ids_BT.shape, dtype=torch.float64)

    def metrics(self, batch: Batch) -> Stats:
        """Nothing is corrected, so nothing is measured."""
        return {}


@dataclass(frozen=True, kw_only=True)
class _Ratio:
    """The ratio p_old / p_sampler with its bounds, shared by both treatments of what lies outside.

    With `level: token` each token has its own ratio; with `level: sequence` all tokens of a
    response have the product of its ratios, which is the ratio of the whole response.

    Attributes:
        level: whether a ratio is of a token or of a whole response.
        cap: upper bound of the ratio.
        floor: lower bound of the ratio.
    """

    required_evidence: ClassVar[frozenset[str]] = frozenset({"old_logp", "sampled_logp"})
    level: Literal["token", "sequence"] = "token"
    cap: Positive = 3.0
    floor: NotNegative = 0.0

    def __post_init__(self) -> None:
        if self.floor >= self.cap:
            raise ValueError(
                f"floor {self.floor:g} is not below cap {self.cap:g}; weights lie between the two"
            )

    def ratio(self, batch: Batch) -> Float[Tensor, "B T"]:
        """p_old / p_sampler at response tokens in float64, 1 elsewhere."""
        among_BT = batch.is_response_BT
        difference_BT = torch.where(
            among_BT, batch.old_logp_BT.double() - batch.sampled_logp_BT.double(), 0.0
        )
        if self.level == "sequence":
            difference_BT = difference_BT.sum(1, keepdim=True) * among_BT
        return difference_BT.exp()

    def _share_outside(self, batch: Batch) -> float:
        """Share of the tokens (of the responses, at `level: sequence`) outside of the bounds."""
        among_BT = batch.is_response_BT
        ratio_BT = self.ratio(batch)
        outside_BT = among_BT & ((ratio_BT > self.cap) | (ratio_BT < self.floor))
        if self.level == "sequence":
            return int(outside_BT.any(1).sum()) / max(int(among_BT.any(1).sum()), 1)
        return int(outside_BT.sum()) / max(int(among_BT.sum()), 1)


@dataclass(frozen=True, kw_only=True)
class TruncateRatio(_Ratio):
    """The ratio p_old / p_sampler, at most `cap` and at least `floor`.

    Truncated importance sampling (TIS, Yao et al. 2025, "Your Efficient RL Framework Secretly
    Brings You Off-Policy RL Training"). TRL's modes are `token_truncate` and `sequence_truncate`;
    verl's `rollout_is` truncates at 2 and has no floor.
    """

    kind: Literal["truncate"] = "truncate"

    def __call__(self, batch: Batch) -> Float[Tensor, "B T"]:
        """Weights in float64."""
        return self.ratio(batch).clamp(self.floor, self.cap)

    def metrics(self, batch: Batch) -> Stats:
        """Mean weight, and the share of the tokens, or responses, whose ratio was truncated."""
        return _mean_weight(self, batch) | {
            "correction_truncated_share": self._share_outside(batch)
        }


@dataclass(frozen=True, kw_only=True)
class MaskRatio(_Ratio):
    """The ratio p_old / p_sampler if it lies within `floor` and `cap`, and 0 if not.

    Masked importance sampling: TRL's modes `token_mask` and `sequence_mask`, the latter its
    default, with a cap of 3. IcePop (Ant Group 2025) is `level: token` with a floor of 0.5 and a
    cap of 5. verl leaves masked tokens out of the denominator; here, as in TRL, they stay in it.
    """

    kind: Literal["mask"] = "mask"

    def __call__(self, batch: Batch) -> Float[Tensor, "B T"]:
        """Weights in float64."""
        ratio_BT = self.ratio(batch)
        return torch.where((ratio_BT > self.cap) | (ratio_BT < self.floor), 0.0, ratio_BT)

    def metrics(self, batch: Batch) -> Stats:
        """Mean weight, and the share of the tokens, or responses, that were masked."""
        return _mean_weight(self, batch) | {"correction_masked_share": self._share_outside(batch)}


Correction = NoCorrection | TruncateRatio | MaskRatio


def _mean_weight(correction: TruncateRatio | MaskRatio, batch: Batch) -> Stats:
    """The mean weight over response tokens; empty without any."""
    among_BT = batch.is_response_BT
    if not among_BT.any():
        return {}
    return {"correction_weight_mean": float(correction(batch)[among_BT].mean())}
