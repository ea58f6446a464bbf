"""Advantages: one number per rollout from the rewards of its group, computed in fp64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int

from reasontrain.algo._plugin_checks import not_advantages
from reasontrain.plugins import Component
from reasontrain.types import NotNegative, UserError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class GroupNormalized:
    """(r - mean) / (std + eps) within the group, with the n - 1 standard deviation.

    GRPO, arXiv 2402.03300, section 4.1.2. A group whose std is below `std_floor` gets zeros, so
    that rewards that differ only by rounding do not become advantages of 1. Both settings are in
    the unit of the reward: with rewards of the order of 1e-4 every group is below the floor and
    nothing is learned (`useful_share` is 0), so scale such rewards, or lower both.
    """

    kind: Literal["group_normalized"] = "group_normalized"
    eps: NotNegative = 1e-4
    std_floor: NotNegative = 1e-4

    def __call__(
        self, reward_B: Float[Tensor, " B"], group_B: Int[Tensor, " B"]
    ) -> Float[Tensor, " B"]:
        """Advantages of B rollouts; groups need not be adjacent."""
        centred_B, size_B, index_B = _centred(reward_B, group_B, self.kind)
        std_B = (_group_sums(centred_B.square(), index_B)[index_B] / (size_B - 1)).sqrt()
        advantage_B = torch.where(std_B < self.std_floor, 0, centred_B / (std_B + self.eps))
        return advantage_B.to(reward_B.dtype)


@dataclass(frozen=True, kw_only=True)
class LeaveOneOut:
    """r minus the mean of the group's other rewards (RLOO, arXiv 2402.14740, eq. 8)."""

    kind: Literal["leave_one_out"] = "leave_one_out"

    def __call__(
        self, reward_B: Float[Tensor, " B"], group_B: Int[Tensor, " B"]
    ) -> Float[Tensor, " B"]:
        """Advantages of B rollouts; r - (S - r) / (n - 1) is n / (n - 1) times r - mean."""
        centred_B, size_B, _ = _centred(reward_B, group_B, self.kind)
        return (centred_B * size_B / (size_B - 1)).to(reward_B.dtype)


@dataclass(frozen=True, kw_only=True)
class MeanCentred:
    """r - mean within the group, not divided by a standard deviation.

    Dr. GRPO, arXiv 2503.20783, section 3.2.
    """

    kind: Literal["mean_centred"] = "mean_centred"

    def __call__(
        self, reward_B: Float[Tensor, " B"], group_B: Int[Tensor, " B"]
    ) -> Float[Tensor, " B"]:
        """Advantages of B rollouts."""
        return _centred(reward_B, group_B, self.kind)[0].to(reward_B.dtype)


@dataclass(frozen=True, kw_only=True)
class NoAdvantage:
    """Zeros, for demonstrations and distillation, which do not use rewards."""

    kind: Literal["none"] = "none"

    def __call__(
        self, reward_B: Float[Tensor, " B"], group_B: Int[Tensor, " B"]
    ) -> Float[Tensor, " B"]:
        """Zeros."""
        return torch.zeros_like(reward_B)


@runtime_checkable
class CustomAdvantage(Protocol):
    """Advantages of a plug-in."""

    @property
    def kind(self) -> str:
        """The `kind` that names it in the recipe."""
        ...

    def __call__(
        self, reward_B: Float[Tensor, " B"], group_B: Int[Tensor, " B"]
    ) -> Float[Tensor, " B"]:
        """Advantages of B rollouts."""
        ...


AdvantagePlugin = Annotated[
    CustomAdvantage,
    Component(
        key="advantage",
        noun="an advantage",
        arguments=("reward_B", "group_B"),
        check_result=not_advantages,
    ),
]
Advantage = GroupNormalized | LeaveOneOut | MeanCentred | NoAdvantage | AdvantagePlugin


def _group_sums(value_B: Float[Tensor, " B"], index_B: Int[Tensor, " B"]) -> Float[Tensor, " G"]:
    """Sum over each group; `index_B` numbers the groups from 0."""
    num_groups = int(index_B.max()) + 1 if len(index_B) else 0
    return value_B.new_zeros(num_groups).index_add_(0, index_B, value_B)


def _centred(
    reward_B: Float[Tensor, " B"], group_B: Int[Tensor, " B"], kind: str
) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"], Int[Tensor, " B"]]:
    """Rewards minus their group's mean in fp64, and the size and index of each rollout's group."""
    groups_G, index_B = group_B.unique(return_inverse=True)
    size_G = _group_sums(torch.ones_like(reward_B, dtype=torch.float64), index_B)
    if (alone_G := size_G == 1).any():
        example = int(groups_G[alone_G][0])
        raise UserError(
            f"advantage {kind!r} compares the rollouts of a group, but {int(alone_G.sum())} "
            f"of {len(groups_G)} groups"
            f" (group {example}) have one rollout only; set `sample.group_size` to 2 or "
            f"more, or `advantage: {{kind: none}}`"
        )
    reward_B = reward_B.double()
    mean_G = _group_sums(reward_B, index_B) / size_G
    return reward_B - mean_G[index_B], size_G[index_B], index_B
