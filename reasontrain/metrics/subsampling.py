"""Metrics of rollout filters and token selection: the size and the composition of what is kept."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from reasontrain.types import Batch, Stats


def rollout_numbers(sampled: Batch, kept: Batch) -> Stats:
    """Metrics of a rollout filter: its effect on advantages, and its share of each pass rate.

    Useful rollouts have an advantage other than 0; variances divide by n - 1.
    """
    kept_B = torch.isin(sampled.rollout_B, kept.rollout_B)
    useful_B = sampled.advantage_B != 0
    stats: Stats = {
        "rollouts_kept_share": _share(kept_B),
        "useful_share": _share(useful_B),
        "useful_share_kept": _share(useful_B[kept_B]),
        "advantage_var": _variance(sampled.advantage_B),
        "advantage_var_kept": _variance(kept.advantage_B),
        "advantage_mean_kept": _mean(kept.advantage_B),
    }
    return stats | {
        f"rollouts_kept_{name}": _share(kept_B[has_B])
        for name, has_B in pass_rates(sampled).items()
        if has_B.any()
    }


def pass_rates(batch: Batch) -> dict[str, Bool[Tensor, " B"]]:
    """Masks of the rollouts by the pass rate of their group; a pass is a right answer.

    Without verdicts, a reward above 1/2 is a pass. The rates are none, less than a third, a third
    to two thirds, more, and all.
    """
    passed_B = batch.reward_B > 0.5 if batch.correct_B is None else batch.correct_B
    group_B = batch.group_B.unique(return_inverse=True)[1]
    right_G, size_G = (
        torch.zeros(len(batch.group_B)).double().index_add(0, group_B, count_B.double())
        for count_B in (passed_B, torch.ones_like(group_B))
    )
    rate_B = (right_G / size_G)[group_B]
    return {
        "none": rate_B == 0,
        "low": (rate_B > 0) & (rate_B < 1 / 3),
        "half": (rate_B >= 1 / 3) & (rate_B <= 2 / 3),
        "high": (rate_B > 2 / 3) & (rate_B < 1),
        "all": rate_B == 1,
    }


def token_numbers(batch: Batch, weight_BT: Float[Tensor, "B T"]) -> Stats:
    """Trained share of all sampled tokens, and mean entropy of kept and dropped tokens."""
    kept_BT = weight_BT != 0
    among_BT = batch.is_response_BT
    stats: Stats = {
        "sampled_tokens": float(batch.sampled_tokens),
        "trained_share": int(kept_BT.sum()) / max(batch.sampled_tokens, 1),
    }
    if "entropy" in batch.evidence:
        for name, chosen_BT in (("kept", among_BT & kept_BT), ("dropped", among_BT & ~kept_BT)):
            if chosen_BT.any():
                stats[f"entropy_{name}_mean"] = _mean(batch.entropy_BT[chosen_BT])
    return stats


def _share(is_N: Bool[Tensor, " N"]) -> float:
    """The share that is true; 0 if there are none."""
    return _mean(is_N.double())


def _mean(value_N: Float[Tensor, " N"]) -> float:
    return float(value_N.double().mean()) if len(value_N) else 0.0


def _variance(value_N: Float[Tensor, " N"]) -> float:
    """Variance with n - 1 in the denominator; 0 for fewer than two values.

    With n - 1, the subset of greatest variance never has a smaller variance than the whole.
    """
    return float(value_N.double().var()) if len(value_N) > 1 else 0.0
