"""What a run spends until it is as good as another: trained tokens to reach an accuracy that both
reach.

Shapes: R, Q runs (training seeds), E evaluations on the way, M problems, K draws.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from reasontrain.metrics.accuracy import Interval
from reasontrain.types import RunError


@dataclass(frozen=True)
class Curves:
    """How right the runs of an arm were on the way: scores of each problem, and the tokens that had
    been trained on by then.
    """

    score_REM: Float64[np.ndarray, "R E M"]
    tokens_RE: Float64[np.ndarray, "R E"]


def reach(
    tokens_E: Float64[np.ndarray, " E"], accuracy_E: Float64[np.ndarray, " E"], target: float
) -> float:
    """Tokens at which the curve first reaches `target`, on straight lines between evaluations; the
    curve does reach it.
    """
    first = int(np.argmax(accuracy_E >= target))
    if first == 0:
        return float(tokens_E[0])
    low, high = accuracy_E[first - 1], accuracy_E[first]
    return float(
        tokens_E[first - 1]
        + (target - low) / (high - low) * (tokens_E[first] - tokens_E[first - 1])
    )


def saving(
    treated: Curves, control: Curves, *, seed: int = 0, num_draws: int = 2_000, level: float = 0.95
) -> Interval:
    """1 - t / c, with t and c the trained tokens at which the two arms reach the lower of their
    last accuracies.

    Both arms do reach that accuracy, so nothing is cut off: an arm that ends lower is charged all
    of its tokens. Each draw resamples the problems, once for both, and R - 1 of the R seeds of each
    arm (as `metrics.paired_difference`), and reads both curves again. Raises RunError where an arm
    ends no better than it began: there is nothing to reach.
    """
    rng = np.random.default_rng(seed)
    num_problems = treated.score_REM.shape[2]
    for name, arm in (("first", treated), ("second", control)):
        start, *_, end = arm.score_REM.mean((0, 2))
        if end <= start:
            raise RunError(
                f"the {name} arm ends at {end:.3f}, no better than it began ({start:.3f}): "
                f"there is no accuracy to reach"
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
    """Tokens and accuracy of an arm on the way, over all problems and seeds."""
    return arm.tokens_RE.mean(0), arm.score_REM.mean((0, 2))


def _drawn(
    rng: np.random.Generator, arm: Curves, weight_M: Float64[np.ndarray, " M"]
) -> tuple[Float64[np.ndarray, " E"], Float64[np.ndarray, " E"]]:
    """Tokens and accuracy of an arm on the way, over drawn problems and drawn seeds."""
    num_seeds = len(arm.tokens_RE)
    seeds = rng.integers(num_seeds, size=max(num_seeds - 1, 1))
    return arm.tokens_RE[seeds].mean(0), (arm.score_REM[seeds] @ weight_M).mean(0)


def _saving(
    treated_E: Float64[np.ndarray, " E"],
    treated_accuracy_E: Float64[np.ndarray, " E"],
    control_E: Float64[np.ndarray, " E"],
    control_accuracy_E: Float64[np.ndarray, " E"],
) -> float:
    """The saving on two curves; an accuracy that an arm has at once costs it one token, so that the
    ratio exists.
    """
    target = min(treated_accuracy_E[-1], control_accuracy_E[-1])
    spent, usual = (
        reach(treated_E, treated_accuracy_E, target),
        reach(control_E, control_accuracy_E, target),
    )
    return 1 - max(spent, 1.0) / max(usual, 1.0)
