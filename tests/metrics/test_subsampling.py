"""What a thinned step is described by, worked by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from reasontrain.algo.advantages import GroupNormalized
from reasontrain.algo.token_selection import LinearSchedule, MaxVariance
from reasontrain.metrics.subsampling import pass_rates, rollout_numbers, token_numbers
from reasontrain.types import Batch, TokenKind


def step(rewards: list[float], group_size: int) -> Batch:
    num = len(rewards)
    reward_B, group_B = torch.tensor(rewards).float(), torch.arange(num) // group_size
    return Batch(
        ids_BT=torch.zeros(num, 3, dtype=torch.long),
        kind_BT=torch.tensor([[TokenKind.PROMPT, TokenKind.RESPONSE, TokenKind.RESPONSE]]).repeat(
            num, 1
        ),
        rollout_B=torch.arange(num),
        group_B=group_B,
        reward_B=reward_B,
        advantage_B=GroupNormalized(eps=0.0)(reward_B, group_B),
        sampled_rollouts=num,
        sampled_tokens=2 * num,
    )


def test_a_rollout_rule_in_numbers() -> None:
    """Groups of four with 4, 1 and 2 right.

    A = 0; 1.5 and -0.5 (std 1/2); 0.866 and -0.866 (std 1/sqrt 3).

    Variances with n - 1: of all twelve (1.5^2 + 3 * 0.25 + 4 * 0.75) / 11 = 6 / 11. The widest four
    are 1.5, 0.866 and twice -0.866, with mean 0.15849 and squares 4.5: (4.5 - 4 * 0.02512) / 3 =
    1.46651.
    """
    sampled = step([1, 1, 1, 1, 1, 0, 0, 0, 1, 1, 0, 0], 4)
    found = rollout_numbers(sampled, MaxVariance(keep_ratio=LinearSchedule(init=1 / 3))(sampled))
    assert found == pytest.approx(
        {
            "rollouts_kept_share": 4 / 12,
            "useful_share": 8 / 12,
            "useful_share_kept": 1,
            "advantage_var": 6 / 11,
            "advantage_var_kept": 1.46651,
            "advantage_mean_kept": 0.15849,
            "rollouts_kept_low": 1 / 4,
            "rollouts_kept_half": 3 / 4,
            "rollouts_kept_all": 0,
        },
        abs=1e-4,
    )


def test_pass_rates_of_eight() -> None:
    """None; 1 and 2 of 8 are below a third; 3 to 5; 6 and 7 above two thirds; all."""
    sampled = step([float(i < right) for right in range(9) for i in range(8)], 8)
    found = {
        name: sorted(set(sampled.group_B[has_B].tolist()))
        for name, has_B in pass_rates(sampled).items()
    }
    assert found == {"none": [0], "low": [1, 2], "half": [3, 4, 5], "high": [6, 7], "all": [8]}


def test_a_pass_is_a_right_answer_and_not_a_reward_for_a_box() -> None:
    """100 for a right answer, 10 for a box, 0 for neither: two of four right, not three."""
    sampled = step([100, 10, 100, 0], 4)
    judged = replace(sampled, correct_B=torch.tensor([True, False, True, False]))
    assert [name for name, has_B in pass_rates(judged).items() if has_B.any()] == ["half"]
    assert [name for name, has_B in pass_rates(sampled).items() if has_B.any()] == ["high"]


def test_nothing_kept_and_nothing_sampled() -> None:
    sampled = step([0, 0, 0, 0], 4)
    nothing = sampled.take(torch.zeros(0, dtype=torch.long))
    found = rollout_numbers(sampled, nothing)
    assert (
        found["rollouts_kept_share"],
        found["useful_share_kept"],
        found["advantage_var_kept"],
    ) == (0, 0, 0)
    assert rollout_numbers(nothing, nothing)["rollouts_kept_share"] == 0


def test_tokens_in_numbers() -> None:
    """Four of sixteen sampled tokens are left after rollouts went, one is kept: 1/16; entropies 2
    and the mean of 1, 0, 0.
    """
    left = replace(step([1, 0], 2), sampled_tokens=16).with_evidence(
        {"entropy": torch.tensor([[9.0, 2, 1], [9, 0, 0]])}
    )
    weight_BT = torch.tensor([[0.0, 0.5, 0], [0, 0, 0]])
    assert token_numbers(left, weight_BT) == pytest.approx(
        {
            "sampled_tokens": 16,
            "trained_share": 1 / 16,
            "entropy_kept_mean": 2,
            "entropy_dropped_mean": 1 / 3,
        }
    )
    assert "entropy_dropped_mean" not in token_numbers(left, left.is_response_BT.float())
