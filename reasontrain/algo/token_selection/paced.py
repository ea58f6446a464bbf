"""PACED: distillation on prompts that the student solves sometimes.

arXiv 2603.11178.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from jaxtyping import Float

from reasontrain.algo.token_selection.scores.soft_weights import mean_one
from reasontrain.types import Batch, NotNegative, RunError, Stats

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Paced:
    """Weight r^alpha (1 - r)^beta at every token of a prompt's rollouts, r the prompt's solve rate.

    PACED, arXiv 2603.11178: the signal of distillation over its noise vanishes at prompts that the
    student always or never solves, and r (1 - r) is its leading order. r is the share of the
    rollouts of a group that are right, by the verdict, or else by a reward in [0, 1]. Departure:
    the paper measures r before training, here it is that of the step's own group, so it needs
    `sample.group_size` of 2 or more and follows the student. Prompts with r of 0 or 1 have weight 0
    and leave the denominators of the loss; `loss_aggregation: response_token_mean` keeps them
    there. `scale: mean_one` divides by the mean over the step's response tokens, so that the
    learning rate means what it does without the rule; `kernel` is the formula, at most 1/4 with
    alpha = beta = 1. Raises RunError if there is no verdict and a reward is outside of [0, 1].

    Attributes:
        alpha: exponent of the solve rate r.
        beta: exponent of 1 - r.
        scale: `kernel` is the formula, `mean_one` divides it by its mean over the response tokens.
    """

    required_evidence: ClassVar[frozenset[str]] = frozenset()
    kind: Literal["paced"] = "paced"
    alpha: NotNegative = 1.0
    beta: NotNegative = 1.0
    scale: Literal["kernel", "mean_one"] = "kernel"

    def kept_share(self, progress: float) -> float:
        """1: any prompt may be solved sometimes."""
        return 1.0

    def __call__(self, batch: Batch) -> Float[Tensor, "B T"]:
        among_BT = batch.is_response_BT
        rate_B = solve_rate(batch)
        kernel_B = rate_B**self.alpha * (1 - rate_B) ** self.beta
        weight_BT = torch.where(among_BT, kernel_B[:, None], 0.0)
        if self.scale == "mean_one":
            weight_BT = mean_one(weight_BT, among_BT)
        return weight_BT.float()

    def metrics(self, batch: Batch) -> Stats:
        """Mean solve rate of the rollouts, and the share of them with a weight."""
        rate_B = solve_rate(batch)
        if not len(rate_B):
            return {}
        between_B = (rate_B > 0) & (rate_B < 1)
        return {
            "solve_rate_mean": float(rate_B.mean()),
            "between_share": float(between_B.double().mean()),
        }


def solve_rate(batch: Batch) -> Float[Tensor, " B"]:
    """Share of right rollouts in the group of each rollout, in float64.

    Raises RunError if rollouts have no verdict, and a reward is outside of [0, 1].
    """
    right_B = (batch.reward_B if batch.correct_B is None else batch.correct_B).double()
    if bool(((right_B < 0) | (right_B > 1)).any()):
        raise RunError(
            f"a solve rate needs verdicts or rewards from 0 to 1, and a rollout has reward "
            f"{float(right_B[(right_B < 0) | (right_B > 1)][0]):g}; return `correct` from the "
            "reward function, or another rule than paced"
        )
    _, index_B = batch.group_B.unique(return_inverse=True)
    size_G = index_B.bincount().double()
    total_G = torch.zeros_like(size_G).index_add_(0, index_B, right_B)
    return (total_G / size_G)[index_B]
