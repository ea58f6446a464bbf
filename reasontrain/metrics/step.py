"""Metrics of one training step: rewards, lengths, evidence, and the selected tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from reasontrain.algo.token_selection.scores.quadrants import (
    Thresholds,
    medians,
    quadrants,
    recall,
    shares,
)
from reasontrain.metrics.subsampling import token_numbers
from reasontrain.types import Batch, Rollout, Stats, TokenKind

FIXED_THRESHOLDS = Thresholds(entropy=0.3, divergence=0.5)
"""Thresholds of high entropy and divergence in nats, the same in every run."""


def step_metrics(
    batch: Batch, weight_BT: Float[Tensor, "B T"], rollouts: Sequence[Rollout]
) -> Stats:
    """Metrics of one step: lengths, evidence, and selection by position and quadrant.

    Args:
        batch: the rollouts that were learned from, with their evidence.
        weight_BT: weights of token selection; 0 where a token was not selected.
        rollouts: all rollouts that were sampled, including those that a filter dropped.

    Returns:
        Metrics as written to metrics.jsonl; means of evidence are in its unit.
    """
    totals = batch.totals(weight_BT)
    among_BT = batch.is_response_BT
    stats: Stats = {
        "response_tokens_mean": _mean([float(len(r.response_ids)) for r in rollouts]),
        "truncated_share": _mean([float(r.truncated) for r in rollouts]),
        "unfinished_share": _mean([float(r.unfinished) for r in rollouts]),
        "trained_tokens": float(totals.kept_tokens),
        "rollouts": float(totals.rollouts),
        **token_numbers(batch, weight_BT),
    }
    thoughts = [r.kinds.index(TokenKind.FORCED) for r in rollouts if TokenKind.FORCED in r.kinds]
    if thoughts:
        stats["thought_tokens_mean"] = _mean([float(length) for length in thoughts])
        stats["concluded_share"] = _mean([float(r.concluded) for r in rollouts])
    for name, column_BT in batch.evidence.items():
        if among_BT.any():
            stats[f"{name}_mean"] = float(column_BT[among_BT].double().nanmean())
    stats |= _kept_by_place(among_BT, weight_BT)
    if "kl_reverse" in batch.evidence and among_BT.any():
        stats["share_of_kl_kept"] = _share_of(batch.kl_reverse_BT, weight_BT != 0, among_BT)
    if {"entropy", "kl_reverse"} <= batch.evidence.keys() and among_BT.any():
        stats |= _quadrants(batch, weight_BT)
    return stats


def sampler_mismatch(batch: Batch) -> Stats:
    """Difference of the sampler's distribution from the learner's, at the tokens it sampled.

    With d = log p_learner - log p_sampler and the ratio r = e^d of each response token:

    - `sampler_gap_mean`, `sampler_gap_max`: mean and largest |d|, in nats. Rounding of bfloat16
      makes the mean about 0.01; a larger one is a sampler with other weights, another temperature
      or another tokenisation.
    - `sampler_kl`: mean of r - 1 - d, in nats: the estimator k3 of KL(sampler || learner), which is
      never negative (Schulman 2020, "Approximating KL Divergence").
    - `sampler_ratio_max`: the largest r, which importance weights would have.
    - `sampler_ess`: effective sample size of those weights as a share of the tokens,
      (sum r)^2 / (n sum r^2) (Kong 1992); 1 if all are equal.

    Empty if the sampler reported no log-probs, or if the learner's were not measured.
    """
    among_BT = batch.is_response_BT
    if not {"sampled_logp", "old_logp"} <= batch.evidence.keys() or not among_BT.any():
        return {}
    difference_N = (batch.old_logp_BT - batch.sampled_logp_BT)[among_BT].double()
    gap_N = difference_N.abs()
    ratio_N = difference_N.exp()
    return {
        "sampler_gap_mean": float(gap_N.mean()),
        "sampler_gap_max": float(gap_N.max()),
        "sampler_kl": float((torch.expm1(difference_N) - difference_N).mean()),
        "sampler_ratio_max": float(ratio_N.max()),
        "sampler_ess": float(ratio_N.sum() ** 2 / (len(ratio_N) * (ratio_N**2).sum())),
    }


def _kept_by_place(among_BT: Bool[Tensor, "B T"], weight_BT: Float[Tensor, "B T"]) -> Stats:
    """Kept share of the first, middle and last third of each response.

    It reveals rules that merely prefer the beginning of a response.
    """
    place_BT = (among_BT.cumsum(1) - 1) * 3 // among_BT.sum(1, keepdim=True).clamp(min=1)
    thirds = {
        name: among_BT & (place_BT == third)
        for third, name in enumerate(("first", "middle", "last"))
    }
    return {
        f"kept_of_{name}_third": float((weight_BT != 0)[part_BT].double().mean())
        for name, part_BT in thirds.items()
        if part_BT.any()
    }


def _quadrants(batch: Batch, weight_BT: Float[Tensor, "B T"]) -> Stats:
    """Shares of TIP's quadrants at the step's medians, and the kept share of each.

    Medians determine the sums of shares, so `fixed_share_*` are the shares at fixed thresholds.
    `share_of_kl_*` are shares of the sum of reverse KL, not of the number of tokens.
    """
    among_BT = batch.is_response_BT
    kept_BT = weight_BT != 0
    entropy_BT = batch.entropy_BT
    divergence_BT = batch.kl_reverse_BT
    thresholds = medians(entropy_BT, divergence_BT, among_BT)
    quadrant_BT = quadrants(entropy_BT, divergence_BT, among_BT, thresholds)
    fixed_BT = quadrants(entropy_BT, divergence_BT, among_BT, FIXED_THRESHOLDS)
    kept_of = shares(quadrant_BT, kept_BT)
    fixed = shares(fixed_BT, among_BT)
    stats: Stats = {}
    for quadrant, share in shares(quadrant_BT, among_BT).items():
        stats[f"share_{quadrant.name}"] = share
        stats[f"fixed_share_{quadrant.name}"] = fixed[quadrant]
        stats[f"share_of_kept_{quadrant.name}"] = kept_of[quadrant]
        stats[f"share_of_kl_{quadrant.name}"] = _share_of(
            divergence_BT, quadrant_BT == quadrant, among_BT
        )
        stats[f"kept_{quadrant.name}"] = recall(quadrant_BT, kept_BT, quadrant) or 0.0
    return stats


def _share_of(
    value_BT: Float[Tensor, "B T"], part_BT: Bool[Tensor, "B T"], among_BT: Bool[Tensor, "B T"]
) -> float:
    """The share of the sum of values that tokens of `part_BT` have; 0 if the sum is 0."""
    total = float(value_BT[among_BT].double().sum())
    return float(value_BT[among_BT & part_BT].double().sum()) / total if total else 0.0


def _mean(values: Sequence[float]) -> float:
    return sum(values) / max(len(values), 1)
