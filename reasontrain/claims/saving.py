"""Trained tokens that an arm saves until it reaches an accuracy that both arms reach.

Shapes: R runs (training seeds), E evaluations during training, M problems, K draws.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from reasontrain.metrics.accuracy import Interval
from reasontrain.types import RunError


@dataclass(frozen=True)
class Curves:
    """Curves of an arm's runs: scores of each problem, and tokens trained on, per evaluation."""

    score_REM: Float64[np.ndarray, "R E M"]
    tokens_RE: Float64[np.ndarray, "R E"]


def reach(
    tokens_E: Float64[np.ndarray, " E"], accuracy_E: Float64[np.ndarray, " E"], target: float
) -> float:
    """Tokens at which a curve first reaches `target`, with linear interpolation.

    The curve must reach the target.
    """
    first = int(np.argmax(accuracy_E >= target))
    if first == 0:
        return float(tokens_E[0])
    low = accuracy_E[first - 1]
    high = accuracy_E[first]
    return float(
        tokens_E[first - 1]
        + (target - low) / (high - low) * (tokens_E[first] - tokens_E[first - 1])
    )


def saving(
    treated: Curves, control: Curves, *, seed: int = 0, num_draws: int = 2_000, level: float = 0.95
) -> Interval:
    """Compute the saving 1 - t / c with a bootstrap interval.

    t and c are the trained tokens at which the treated and the control arm reach the lower of their
    last accuracies. Both arms reach it, so nothing is censored: the arm that ends lower counts with
    all of its tokens. Each draw resamples the problems, once for both arms, and R - 1 of the R
    seeds of each arm (like `metrics.accuracy.paired_difference`), and computes both curves again.

    Args:
        treated: curves of the arm whose saving is measured.
        control: curves of the arm it is compared with, on the same M problems.
        seed: seed of the bootstrap.
        num_draws: number of draws, K.
        level: coverage of the interval.

    Returns:
        The saving as a share of the control's tokens, with its interval.

    Raises:
        RunError: an arm ends no better than it began, so a saving is not defined.
    """
    rng = np.random.default_rng(seed)
    num_problems = treated.score_REM.shape[2]
    for name, arm in (("first", treated), ("second", control)):
        start, *_, end = arm.score_REM.mean((0, 2))
        if end <= start:
            raise RunError(
                f"the {name} arm ends at accuracy {end:.3f}, no better than it began "
                f"({start:.3f}), so a saving is not defined"
            )
    weight_KM = (
        rng.multinomial(num_problems, np.full(num_problems, 1 / num_problems), size=num_draws)
        / num_problems
    )
    drawn_K = [
        _saving(*_drawn(rng, treated, weight_M), *_drawn(rng, control, weight_M))
        for weight_M in weight_KM
    ]
    low, high = np.quantile(drawn_K, [0.5 - level / 2, 0.5 + level / 2])
    return Interval(_saving(*_whole(treated), *_whole(control)), float(low), float(high))


def _whole(arm: Curves) -> tuple[Float64[np.ndarray, " E"], Float64[np.ndarray, " E"]]:
    """Tokens and accuracy [E] of an arm over all problems and seeds."""
    return arm.tokens_RE.mean(0), arm.score_REM.mean((0, 2))


def _drawn(
    rng: np.random.Generator, arm: Curves, weight_M: Float64[np.ndarray, " M"]
) -> tuple[Float64[np.ndarray, " E"], Float64[np.ndarray, " E"]]:
    """Tokens and accuracy [E] of an arm over resampled problems and seeds."""
    num_seeds = len(arm.tokens_RE)
    seeds = rng.integers(num_seeds, size=max(num_seeds - 1, 1))
    return arm.tokens_RE[seeds].mean(0), (arm.score_REM[seeds] @ weight_M).mean(0)


def _saving(
    treated_E: Float64[np.ndarray, " E"],
    treated_accuracy_E: Float64[np.ndarray, " E"],
    control_E: Float64[np.ndarray, " E"],
    control_accuracy_E: Float64[np.ndarray, " E"],
) -> float:
    """The saving on two curves.

    An accuracy that an arm has from the start counts as one token, so that the ratio is defined.
    """
    target = min(treated_accuracy_E[-1], control_accuracy_E[-1])
    treated = reach(treated_E, treated_accuracy_E, target)
    control = reach(control_E, control_accuracy_E, target)
    return 1 - max(treated, 1.0) / max(control, 1.0)
