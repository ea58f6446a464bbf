"""The user's own reward function: called in worker processes that can be killed and replaced."""

from __future__ import annotations

from reasontrain.tasks.own_reward.pool import (
    Call,
    Outcome,
    RewardFile,
    RewardPool,
)

__all__ = ["Call", "Outcome", "RewardFile", "RewardPool"]
